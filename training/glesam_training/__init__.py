"""Train GleSAM checkpoints by the paper's Algorithm 1, and make the built-in nano."""
