"""The built-in nano: procedural scenes, SAM-nano and its little latent diffusion model."""
