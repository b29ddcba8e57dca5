"""The enhancer: Stable Diffusion's U-Net with CRE and LoRA, as the paper has it and as a graph."""
