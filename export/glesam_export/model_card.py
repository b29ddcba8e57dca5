"""Writes the model card of a bundle, README.md on the Hugging Face Hub, from its manifest."""

from __future__ import annotations

from glesam_runtime.bundle import Bundle
from glesam_runtime.manifest import STAGES, Parity
from glesam_runtime.manifest_file import file_refs
from glesam_runtime.timestep_levels import levels_of


def model_card(bundle: Bundle, repository: str) -> str:
    """Return the card in Markdown: the model, how to run it, its files, its measured accuracy.

    The card names no license, because the manifest does not know that of the weights.
    """
    manifest = bundle.manifest
    model, size = manifest.model, manifest.preprocessing.image_size
    preset, unet = _cell(model.preset), _cell(model.unet)
    precisions = ", ".join(f"{stage} {manifest.stages[stage].precision}" for stage in STAGES)
    megabytes = sum(ref.bytes for ref in file_refs(manifest)) / 1e6
    levels = ", ".join(str(level.timestep) for level in levels_of(manifest))
    timestep = f"timestep {model.timestep}" + (f" (can run {levels})" if levels else "")
    untrained = "" if model.trained else "\n**The weights are random: the masks mean nothing.**\n"
    lines = f"""---
library_name: glesam
pipeline_tag: mask-generation
tags:
- glesam
- segment-anything
- {manifest.target.engine}
---

# GleSAM: {preset} with {unet}
{untrained}
A verified bundle of [GleSAM](https://arxiv.org/abs/2503.12507): Segment Anything for degraded
images, as {manifest.target.engine.upper()} files that run without PyTorch.

| | |
|---|---|
| image encoder | {preset}, of the family {model.family}, {size} x {size} pixels |
| enhancer | U-Net {unet}, {timestep}, gamma {model.gamma:g} |
| precision | {precisions} |
| size | {megabytes:.1f} MB |
| sha256 of manifest.json | `{bundle.sha256}` |

## Run it

```bash
pip install 'glesam-runtime[cpu,hub]'
glesam-run photo.jpg --points 245,300 --bundle {repository}
```

```python
from glesam_runtime import GleSamPredictor, read_image

predictor = GleSamPredictor("{repository}")
predictor.set_image(read_image("photo.jpg"))
masks, scores, low_res = predictor.predict([[245, 300]], [1])
```

`{repository}@COMMIT` pins a revision. The runtime compares each file with the hash in
manifest.json.

## Accuracy
"""
    if manifest.parity is None:
        return f"{lines}\nNot measured.\n"
    return f"{lines}\n{_accuracy(manifest.parity)}\n\n{_sources(bundle)}"


def _accuracy(parity: Parity) -> str:
    """Return the measured figures and the limits as a table."""
    gate = parity.gate
    lines = [
        f"Measured with {parity.backend} when the bundle was written; "
        f"the bundle {'passed' if parity.passed else '**failed**'} its limits.",
        "",
        "| image | level | encoder | enhancer | decoder | mask IoU, mean | worst |",
        "|---|---|---|---|---|---|---|",
    ]
    for image in parity.images:
        errors = " | ".join(
            f"{image.errors[stage].relative_l2:.2e}" if stage in image.errors else ""
            for stage in STAGES
        )
        lines.append(
            f"| {_cell(image.image)} | {image.level} | {errors} | {image.mask_iou_mean:.6f} | "
            f"{image.mask_iou_worst:.6f} |"
        )
    l2, mean, worst = (
        "reported" if limit is None else f"{limit:g}"
        for limit in (gate.stage_relative_l2, gate.mask_iou_mean, gate.mask_iou_worst)
    )
    lines.append(f"| limit | | {l2} | {l2} | {l2} | {mean} | {worst} |")
    return "\n".join(lines)


def _sources(bundle: Bundle) -> str:
    """Return where the weights are from."""
    provenance = bundle.manifest.provenance
    lines = [f"Weights: {_cell(provenance.weights)}."]
    lines += [
        f"- {_cell(s.role)}: `{_cell(s.file)}`, sha256 `{s.sha256}`" for s in provenance.sources
    ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Return text that cannot end a cell, a line or a code span, or open a tag."""
    plain = " ".join(text.split())
    return "".join("_" if each in "|`<>[]\\" else each for each in plain)
