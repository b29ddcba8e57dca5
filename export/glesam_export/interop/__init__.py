"""Writes a bundle as ONNX files in the interfaces that other tools read."""
