"""The contract's types: what manifest.json says.

Every program that runs a bundle, in any language, needs this file and nothing else. The JSON
Schema in docs/manifest.schema.json is generated from these classes.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

from glesam_runtime.target import AxisRange, Target

FORMAT = "glesam-bundle"
VERSION = 1
MANIFEST_FILE = "manifest.json"
GOLDEN_FILE = "golden.safetensors"

StageName = Literal["encoder", "enhancer", "decoder"]
STAGES: tuple[StageName, ...] = get_args(StageName)
ParityOutput = Literal["encoder", "enhancer", "eps", "decoder"]
Family = Literal["sam", "sam2"]
Resize = Literal["longest_side", "square"]
PrecisionName = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
Level = Literal["clear", "LQ-1", "LQ-2", "LQ-3"]

FileName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
Symbol = Annotated[str, Meta(pattern=r"^[A-Z]$")]
Dimension = Annotated[int, Meta(ge=1)] | Symbol
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
    """External weights of the ONNX graph, beside it (ONNX limits one file to 2 GiB)."""
    weights: FileRef | None = None
    """The ONNX graph that an engine without weights takes them from."""
    islands: tuple[str, ...] = ()
    """What stays float32 inside a graph of reduced precision."""
    profile: dict[Symbol, AxisRange] | None = None
    """Sizes of the free axes that an engine takes; ONNX graphs take any."""


class Model(_Record, frozen=True):
    """Which GleSAM this is, and the constants folded into its enhancer (paper, Eq. 4)."""

    family: Family
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
    resize: Resize
    """longest_side: longest side to S, the other to floor(side * S / longest + 0.5).
    square: both sides to S, whatever the image's shape."""
    kernel: Literal["pillow_bilinear", "float_bilinear"]
    """Antialiased bilinear, pillow_bilinear: Pillow's in fixed point on uint8, the width first; the
    height first where it loses more than twice as many pixels. float_bilinear: the same triangle,
    nothing rounded to integers, and what comes out float32."""
    channel_order: Literal["RGB"]
    mean: tuple[float, float, float]
    """Subtracted from 0..255 values, per channel."""
    std: tuple[Positive, Positive, Positive]
    """Divides the difference, per channel."""
    pad: Literal["right_bottom", "none"]
    """Zeros after normalisation, up to S x S; none where the image fills the square."""


class Stability(_Record, frozen=True):
    """When a mask counts as stable, judged on `low_res_masks` before upscaling."""

    offset: Positive
    """Stability: pixels above +offset over pixels above -offset; 1 where there are none."""
    threshold: Annotated[float, Meta(ge=0, le=1)]
    """Stable is what reaches it."""


class Postprocessing(_Record, frozen=True):
    """How `low_res_masks` become masks at the image's own size, in this order."""

    upscale: Literal["bilinear", "bilinear_direct"]
    """Half-pixel centres, no antialiasing. bilinear: to S x S; crop the padding; the same to
    (H, W). bilinear_direct: to (H, W) at once."""
    mask_threshold: float
    """A pixel is in the mask where its logit is greater."""
    stability_offset: Positive
    """Stability: area above threshold + offset over area above threshold - offset."""
    single_mask: Literal["first", "first_if_stable"]
    """Without multimask the first of the four masks is the answer, with it the other three.
    first_if_stable: where the first is not stable by `stability`, the one of the other three with
    the highest predicted IoU takes its place."""
    stability: Stability | None = None
    """Of first_if_stable."""
    low_res_limit: Positive | None = None
    """`low_res_masks` that a caller gets, to give back as `mask_input`, are clipped to
    -limit..limit; masks are made of the unclipped ones."""


class Coordinates(_Record, frozen=True):
    """What `point_coords` and `point_labels` hold."""

    order: Literal["xy"]
    space: Literal["resized_pixels"]
    """Pixels of the resized image: original x * resized width / original width, likewise y."""
    pixel_offset: float
    """Added by the graph itself: (0, 0) is the centre of the first pixel."""
    labels: dict[str, int]
    box: Literal["two_points", "two_points_padded"]
    """A box is its two corners as points. A prompt with points or a box ends with one padding
    point: two_points only where it has no box, two_points_padded always."""


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
    level: Level
    errors: dict[ParityOutput, StageError]
    mask_iou_mean: float
    mask_iou_worst: float


class Gate(_Record, frozen=True):
    """What a precision must reach; None where a figure is only reported.

    A calibration asks `mask_iou_worst` of the masks whose object the float bundle finds, an export
    and the golden file of all.
    """

    stage_relative_l2: float | None
    mask_iou_mean: float | None
    mask_iou_worst: float | None


class Parity(_Record, frozen=True):
    """The bundle as measured when it was written.

    An exported one against the PyTorch reference, a quantized one against the float bundle it was
    made of: `backend` says so.
    """

    backend: str
    gate: Gate
    passed: bool
    images: tuple[ImageParity, ...]


class CalibrationSample(_Record, frozen=True):
    """An image that ranges were taken from; `sha256` is of "height width " and its RGB bytes."""

    image: str
    sha256: Sha256
    level: Level


class Calibration(_Record, frozen=True):
    """How a quantized bundle was made of a float one."""

    source: Sha256
    """Of the float bundle's manifest.json."""
    weights_only: tuple[StageName, ...]
    """Stages whose weights are stored in eight bits while they compute in float32."""
    method: Literal["mse", "min-max", "percentile", "entropy"]
    percentile: float | None
    """Of the method of that name."""
    smoothing: float | None
    """SmoothQuant's alpha; None is without."""
    seed: int
    """Decides which images, their degradations and prompts."""
    procedural: bool
    """Whether the images were made up, for want of the user's own."""
    samples: tuple[CalibrationSample, ...]
    float_layers: dict[StageName, tuple[str, ...]]
    """Layers kept in float32 though they could be quantized."""


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
    calibration: Calibration | None = None
