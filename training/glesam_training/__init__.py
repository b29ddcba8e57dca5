"""Algorithm 1 for any preset, and the nano model: everything that makes a checkpoint."""
