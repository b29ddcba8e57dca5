"""Verifies a bundle against the PyTorch reference, and checks the reference's latents."""
