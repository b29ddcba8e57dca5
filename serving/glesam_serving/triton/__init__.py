"""Write a model repository for Triton, and answer Triton's requests."""
