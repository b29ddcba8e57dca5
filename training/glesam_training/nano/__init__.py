"""Make the built-in nano: procedural scenes, SAM-nano and its small latent diffusion model."""
