"""Engines: one contract for what inspects images, PyTorch and ONNX Runtime below it, model files and exports."""
