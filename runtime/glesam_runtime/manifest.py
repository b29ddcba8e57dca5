"""The contract's types: what manifest.json says.

Every program that runs a bundle, in any language, needs this file and nothing else. The JSON
Schema in docs/manifest.schema.json is generated from these classes.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

FORMAT = "glesam-bundle"
VERSION = 1
MANIFEST_FILE = "manifest.json"
GOLDEN_FILE = "golden.safetensors"

StageName = Literal["encoder", "enhancer", "decoder"]
STAGES: tuple[StageName, ...] = get_args(StageName)
ParityOutput = Literal["encoder", "enhancer", "eps", "decoder"]
PrecisionName = Literal["fp32", "fp16", "bf16", "int8", "fp8"]

FileName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
Dimension = Annotated[int, Meta(ge=1)] | Annotated[str, Meta(pattern=r"^[A-Z]$")]
Positive = Annotated[float, Meta(gt=0)]


class _Record(msgspec.Struct, frozen=True):
    """A frozen JSON object. Unknown fields are passed over, so that a version may grow."""


class FileRef(_Record, frozen=True):
    """A file of the bundle, in the manifest's own folder."""

    file: FileName
    bytes: Annotated[int, Meta(ge=0)]
    sha256: Sha256


class TensorSpec(_Record, frozen=True):
    """One input or output of a graph; a capital letter in `shape` is an axis free at run time."""

    name: str
    dtype: Literal["float32"]
    shape: tuple[Dimension, ...]


class Stage(_Record, frozen=True):
    """One graph: its file, the precision inside it, and its interface, float32 at every border."""

    graph: FileRef
    precision: PrecisionName
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    data: FileRef | None = None
    """External weights of `graph`, beside it (ONNX limits one file to 2 GiB)."""
    islands: tuple[str, ...] = ()
    """What stays float32 inside a graph of reduced precision."""


class Model(_Record, frozen=True):
    """Which GleSAM this is, and the constants folded into its enhancer (paper, Eq. 4)."""

    family: Literal["sam", "sam2"]
    preset: str
    unet: str
    trained: bool
    """False for random weights: masks then mean nothing, and mask gates below fp32 are reported."""
    gamma: Positive
    timestep: Annotated[int, Meta(ge=0)]
    alpha_bar: Annotated[float, Meta(gt=0, lt=1)]


class Preprocessing(_Record, frozen=True):
    """How an RGB uint8 image becomes the encoder's `image`, in this order."""

    image_size: Annotated[int, Meta(ge=16)]
    """S: side of the square graph input, pixels."""
    resize: Literal["longest_side"]
    """Longest side to S, the other to floor(side * S / longest + 0.5)."""
    kernel: Literal["pillow_bilinear"]
    """Pillow's antialiased fixed-point bilinear on uint8."""
    channel_order: Literal["RGB"]
    mean: tuple[float, float, float]
    """Subtracted from 0..255 values, per channel."""
    std: tuple[Positive, Positive, Positive]
    """Divides the difference, per channel."""
    pad: Literal["right_bottom"]
    """Zeros after normalisation, up to S x S."""


class Postprocessing(_Record, frozen=True):
    """How `low_res_masks` become masks at the image's own size, in this order."""

    upscale: Literal["bilinear"]
    """To S x S, half-pixel centres, no antialiasing; crop the padding; the same to (H, W)."""
    mask_threshold: float
    """A pixel is in the mask where its logit is greater."""
    stability_offset: Positive
    """Stability: area above threshold + offset over area above threshold - offset."""
    single_mask: Literal["first"]
    """Without multimask the first of the four masks is the answer, with it the other three."""


class Coordinates(_Record, frozen=True):
    """What `point_coords` and `point_labels` hold."""

    order: Literal["xy"]
    space: Literal["resized_pixels"]
    """Pixels of the resized image: original x * resized width / original width, likewise y."""
    pixel_offset: float
    """Added by the graph itself: (0, 0) is the centre of the first pixel."""
    labels: dict[str, int]
    box: Literal["two_points"]
    """A box is its two corners as points; a prompt without a box ends with one padding point."""


class Target(_Record, frozen=True):
    """The engine the graphs are written for."""

    engine: Literal["onnx"]
    opset: int
    batch: Annotated[int, Meta(ge=1)] | Literal["dynamic"]
    """N of encoder and enhancer."""


class Source(_Record, frozen=True):
    """A file the weights came from."""

    role: str
    file: str
    sha256: Sha256


class Provenance(_Record, frozen=True):
    """Where the weights came from and what built the bundle."""

    sources: tuple[Source, ...]
    weights: str
    """In words: "files", "packed", "built-in", "random, seed 0"."""
    tools: dict[str, str]


class StageError(_Record, frozen=True):
    """How far an output lies from the reference's."""

    relative_l2: float
    max_abs: float


class ImageParity(_Record, frozen=True):
    """Figures of one verification image; `eps` is the enhancer's U-Net alone."""

    image: str
    level: Literal["clear", "LQ-1", "LQ-2", "LQ-3"]
    errors: dict[ParityOutput, StageError]
    mask_iou_mean: float
    mask_iou_worst: float


class Gate(_Record, frozen=True):
    """What a precision must reach; None where a figure is only reported."""

    stage_relative_l2: float | None
    mask_iou_mean: float | None
    mask_iou_worst: float | None


class Parity(_Record, frozen=True):
    """The bundle against the PyTorch reference, as measured when it was written."""

    backend: str
    gate: Gate
    passed: bool
    images: tuple[ImageParity, ...]


class Manifest(_Record, frozen=True):
    """manifest.json."""

    format: Literal["glesam-bundle"]
    version: Literal[1]
    model: Model
    stages: dict[StageName, Stage]
    preprocessing: Preprocessing
    postprocessing: Postprocessing
    coordinates: Coordinates
    target: Target
    provenance: Provenance
    parity: Parity | None
    golden: FileRef


def expected_interface(
    stage: StageName, image_size: int, batch: int | str
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs that the contract fixes for a stage of the SAM family."""

    def spec(name: str, *shape: int | str) -> TensorSpec:
        return TensorSpec(name=name, dtype="float32", shape=shape)

    latent, low_res = image_size // 16, image_size // 4
    n = "N" if batch == "dynamic" else batch
    if stage == "encoder":
        return (
            (spec("image", n, 3, image_size, image_size),),
            (spec("image_embeddings", n, 256, latent, latent),),
        )
    if stage == "enhancer":
        return (
            (spec("image_embeddings", n, 256, latent, latent),),
            (spec("enhanced_embeddings", n, 256, latent, latent),),
        )
    return (
        (
            spec("image_embeddings", 1, 256, latent, latent),
            spec("point_coords", "B", "P", 2),
            spec("point_labels", "B", "P"),
            spec("mask_input", "B", 1, low_res, low_res),
            spec("has_mask_input", 1),
        ),
        (spec("low_res_masks", "B", 4, low_res, low_res), spec("iou_predictions", "B", 4)),
    )
