"""Turns the exported graphs into FP16 TensorRT engines; build.py is where to start."""
