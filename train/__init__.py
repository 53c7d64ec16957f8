"""The only folder that imports torch: trains the two models and exports them to ONNX."""
