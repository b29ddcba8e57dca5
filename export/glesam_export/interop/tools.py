"""Describes the ONNX interface that each tool reads: file names, tensor names, sizes and masks.

A tool is one row of `TOOLS`. The graphs, the check and the command read this table and nothing else
about a tool. The interfaces were read from the code of samexporter 0.5.0, AnyLabeling 0.4.43,
X-AnyLabeling 4.2.1, osam 0.8.1 (the engine of labelme), rembg 2.0.86 and segment_anything 1.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from glesam_runtime.manifest import Family

ToolName = Literal["anylabeling", "labelme", "samexporter", "rembg", "meta"]
Masks = Literal["one", "three", "four"]
"""Masks per prompt. "one" is selected in the graph as segment_anything's ONNX export selects it,
"three" are the candidates for ambiguous prompts, "four" are all."""

SAM_MASK_SIDE = 256
"""Side of the `mask_input` that tools for SAM pass, whatever the size of the model."""
SAM_SQUARE = 1024
"""Side of the square that tools for SAM fit images into, whatever the size of the model."""

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""The normalisation of tools that normalise the image themselves, on values from 0 to 255."""
EMBEDDINGS = "image_embeddings"
PROMPTS = ("point_coords", "point_labels", "mask_input", "has_mask_input")


@dataclass(frozen=True)
class EncoderForm:
    """The interface of the graph that joins encoder and enhancer."""

    image: str
    """Name of the input."""
    layout: Literal["HWC", "NCHW"]
    """HWC: float32 RGB values 0 to 255 [height, width, 3] of any size up to the square. The graph
    normalises and pads. NCHW: the contract's `image`, which the tool prepares."""
    outputs: Mapping[str, str]
    """The contract's name of each output: the tool's name, in the tool's order."""
    square: int | None = None
    """Side of the square that the tool fits images into. None is the bundle's image_size."""
    file: str = "encoder.onnx"


@dataclass(frozen=True)
class DecoderForm:
    """The interface of the decoder."""

    features: Mapping[str, str]
    """The contract's name of each feature input: the tool's name, in the tool's order."""
    masks: Masks
    """Masks per prompt unless the user chooses another number."""
    size_input: Literal["float32", "int64"] | None
    """Type of the input `orig_im_size` [2], (height, width). None: the graph has no such input and
    its masks are the low-resolution logits, which the tool enlarges."""
    mask_side: int | None = None
    """Side of `mask_input`. None is a quarter of the bundle's image_size."""
    pads_points: bool = False
    """Whether the graph appends the padding point. Tools for SAM append it themselves."""
    file: str = "decoder.onnx"

    @property
    def outputs(self) -> tuple[str, ...]:
        """Return the names of the outputs in order."""
        low_res = ("low_res_masks",) if self.size_input else ()
        return ("masks", "iou_predictions", *low_res)


@dataclass(frozen=True)
class Interface:
    """The two graphs of a tool for one family."""

    encoder: EncoderForm
    decoder: DecoderForm


@dataclass(frozen=True)
class Tool:
    """A program that runs SAM from ONNX files."""

    title: str
    families: Mapping[Family, Interface]
    fixed_points: bool = False
    """Whether a graph with a fixed number of points is of use: the caller chooses the number."""


_SAM_DECODER = DecoderForm({EMBEDDINGS: EMBEDDINGS}, "one", "float32", SAM_MASK_SIDE)
_SAM_HWC = Interface(
    EncoderForm("input_image", "HWC", {EMBEDDINGS: EMBEDDINGS}, SAM_SQUARE), _SAM_DECODER
)
_SAM2_FEATURES = {
    "high_res_feats_0": "high_res_feats_0",
    "high_res_feats_1": "high_res_feats_1",
    EMBEDDINGS: "image_embed",
}
_SAM2_SPLIT = Interface(
    EncoderForm("image", "NCHW", _SAM2_FEATURES),
    DecoderForm(
        {name: _SAM2_FEATURES[name] for name in (EMBEDDINGS, *list(_SAM2_FEATURES)[:2])},
        "three",
        None,
        pads_points=True,
    ),
)
_OSAM_FEATURES = {
    EMBEDDINGS: EMBEDDINGS,
    "high_res_feats_0": "high_res_features1",
    "high_res_feats_1": "high_res_features2",
}
_REMBG_FILE = "models/sam/sam_vit_b_01ec64.{}.onnx"

TOOLS: Mapping[ToolName, Tool] = {
    "anylabeling": Tool("AnyLabeling and X-AnyLabeling", {"sam": _SAM_HWC, "sam2": _SAM2_SPLIT}),
    "labelme": Tool(
        "labelme",
        {
            "sam": Interface(EncoderForm("x", "NCHW", {EMBEDDINGS: EMBEDDINGS}), _SAM_DECODER),
            "sam2": Interface(
                EncoderForm("input", "NCHW", _OSAM_FEATURES),
                DecoderForm(_OSAM_FEATURES, "three", "int64", SAM_MASK_SIDE, pads_points=True),
            ),
        },
    ),
    "samexporter": Tool("samexporter", {"sam": _SAM_HWC, "sam2": _SAM2_SPLIT}),
    "rembg": Tool(
        "rembg",
        {
            "sam": Interface(
                replace(_SAM_HWC.encoder, file=_REMBG_FILE.format("encoder")),
                replace(_SAM_DECODER, file=_REMBG_FILE.format("decoder")),
            )
        },
    ),
    "meta": Tool(
        "segment_anything",
        {
            "sam": Interface(
                EncoderForm("image", "NCHW", {EMBEDDINGS: EMBEDDINGS}),
                DecoderForm({EMBEDDINGS: EMBEDDINGS}, "four", "float32"),
            )
        },
        fixed_points=True,
    ),
}
