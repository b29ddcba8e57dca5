"""Compile ONNX bundles into TensorRT engines."""
