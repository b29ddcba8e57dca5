"""Folds a GleSAM checkpoint into three typed graphs and a contract, and proves them."""
