"""What files would still need beside them to become a GleSAM."""

from __future__ import annotations

from collections.abc import Iterable

from glesam_export.checkpoints.identify import Finding


def missing(findings: Iterable[Finding]) -> list[str]:
    """Options that an export still needs beside these files; empty where nothing is."""
    by_kind = {finding.kind: finding for finding in findings}
    if by_kind.keys() & {"bundle", "checkpoint", "packed"}:
        return []
    needs = []
    if "sam" not in by_kind:
        needs.append("--sam FILE (the SAM it was trained with)")
    if not by_kind.keys() & {"sd", "unet"}:
        needs.append("--sd FOLDER (the Stable Diffusion base)")
    if "unet" in by_kind and "config" not in by_kind:
        needs.append("--unet-config FILE (the U-Net's config.json)")
    if "lora" not in by_kind:
        needs.append("--lora FILE (the U-Net's adapters)")
    without_text = "unet" in by_kind or ("sd" in by_kind and "text encoder" in by_kind["sd"].lacks)
    if without_text and "prompt_embeds" not in by_kind:
        needs.append("--prompt-embeds FILE (the empty prompt's embedding, for want of an encoder)")
    return [*needs, "--gamma G --timestep T (what the LoRA was trained with)"]
