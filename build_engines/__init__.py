"""Build FP16 TensorRT engines from the exported graphs. Start reading in build.py."""
