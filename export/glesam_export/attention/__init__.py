"""Finds the attentions of an ONNX graph and rewrites them into the form that an engine is fast on.

Graphs spell attention out, and compute heads with many tokens one at a time (ADR 11). That is the
best form on a CPU. On a GPU one head is too little work, and a fused kernel needs a form it knows.
"""
