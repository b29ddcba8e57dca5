"""Folds a GleSAM checkpoint into three typed graphs, and verifies them against PyTorch."""
