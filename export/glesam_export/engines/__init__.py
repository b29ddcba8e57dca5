"""Compiles ONNX bundles into TensorRT engines, and says which GPUs they are for."""
