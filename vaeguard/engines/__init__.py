"""Engines: one detector contract, PyTorch and ONNX Runtime below it, model files and exports."""
