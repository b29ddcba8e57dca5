"""Compiles ONNX bundles into TensorRT engines."""
