"""Measure a bundle's speed and memory next to PyTorch and plain ONNX exports."""
