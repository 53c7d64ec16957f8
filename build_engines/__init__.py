"""Turns the exported graphs into FP16 TensorRT engines. Empty until the engine builder is written."""
