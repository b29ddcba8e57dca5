"""Builds the enhancer, Stable Diffusion's U-Net with CRE and LoRA: the reference and the graph."""
