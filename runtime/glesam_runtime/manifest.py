"""Define the types of manifest.json, which is the contract between exporter and runtimes.

A program that runs a bundle needs to know these types and nothing else of the exporter. The JSON
Schema in docs/manifest.schema.json is generated from them, and runtime/cpp/src/manifest.h is the
C++ version.

The contract grows in two ways, and neither changes `version`:

- An optional field adds knowledge. A reader ignores fields that it does not know.
- A name in `requires` changes meaning. A reader refuses a bundle that names a feature that it does
  not know (`KNOWN_FEATURES`), because it would read the bundle wrongly.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import msgspec
from msgspec import UNSET, Meta, UnsetType

from glesam_runtime.checked_text import Sha256, whole
from glesam_runtime.enhancement_gate import EnhancementGate
from glesam_runtime.target import AxisRange, Target

FORMAT = "glesam-bundle"
VERSION = 1
MANIFEST_FILE = "manifest.json"
GOLDEN_FILE = "golden.safetensors"

RELEASED_INPUT = "released_input"
"""The feature of `Preprocessing.first_resize`."""
IMAGE_INDEX = "image_index"
"""The feature of a decoder that takes the features of several images and the input `image_index`,
which says for each prompt which of them it belongs to."""
TIMESTEP_LEVELS = "timestep_levels"
"""The feature of an enhancer that holds several timesteps and takes the input `level`, which says
for each image which of them to run."""
MOST_LEVELS = 256
"""Maximum number of timesteps: bfloat16 holds every index below it exactly."""
KNOWN_FEATURES: frozenset[str] = frozenset({RELEASED_INPUT, IMAGE_INDEX, TIMESTEP_LEVELS})
"""The names in `requires` that this reader supports. In C++ it is kKnownFeatures in manifest.h."""

PIXEL_OFFSET = 0.5
PROMPT_LABELS = {
    "background": 0,
    "foreground": 1,
    "box_top_left": 2,
    "box_bottom_right": 3,
    "padding": -1,
}
"""The values of `point_labels` by meaning."""

StageName = Literal["encoder", "enhancer", "decoder"]
STAGES: tuple[StageName, ...] = get_args(StageName)
ParityOutput = Literal["encoder", "enhancer", "eps", "decoder"]
Family = Literal["sam", "sam2"]
Resize = Literal["longest_side", "square"]
PrecisionName = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
Level = Literal["clear", "LQ-1", "LQ-2", "LQ-3"]

FileName = Annotated[str, whole("[A-Za-z0-9][A-Za-z0-9._-]*"), Meta(max_length=128)]
Symbol = Annotated[str, whole("[A-Z]")]
Dimension = Annotated[int, Meta(ge=1)] | Symbol
Positive = Annotated[float, Meta(gt=0)]
Bounded = Annotated[float, Meta(ge=-1e6, le=1e6)]
Scale = Annotated[float, Meta(ge=1e-6, le=1e6)]
"""A divisor or an offset. Beyond these bounds float32 loses all digits of a pixel or a logit."""


class _Record(msgspec.Struct, frozen=True):
    """A frozen JSON object. Readers ignore unknown fields, so that the contract can grow."""


class FileRef(_Record, frozen=True):
    """A file of the bundle. It lies in the same folder as the manifest."""

    file: FileName
    bytes: Annotated[int, Meta(ge=0)]
    sha256: Sha256


class TensorSpec(_Record, frozen=True):
    """One input or output of a graph. A capital letter in `shape` is a dynamic axis."""

    name: str
    dtype: Literal["float32"]
    shape: tuple[Dimension, ...]


class Stage(_Record, frozen=True):
    """One graph: its file, its internal precision, and its inputs and outputs, always float32."""

    graph: FileRef
    precision: PrecisionName
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    data: FileRef | None = None
    """The ONNX graph's external weights. A large graph has them, as ONNX limits a file to 2 GiB."""
    weights: FileRef | None = None
    """The ONNX graph that supplies the weights of an engine that was compiled without them."""
    islands: tuple[str, ...] = ()
    """The parts of a reduced-precision graph that stay float32. Informative: no reader uses it."""
    profile: dict[Symbol, AxisRange] | None = None
    """The sizes that an engine accepts on each dynamic axis. An ONNX graph accepts any size."""


class TimestepLevel(_Record, frozen=True):
    """A timestep that the enhancer can run, and its constant of the noise schedule."""

    timestep: Annotated[int, Meta(ge=0)]
    alpha_bar: Annotated[float, Meta(gt=0, lt=1)]


class Model(_Record, frozen=True):
    """Which GleSAM this is, and the constants that its enhancer was folded with (paper, Eq. 4).

    A reader uses `family`, `trained` and `timestep_levels`. The other fields are informative: their
    values are already in the graphs.
    """

    family: Family
    preset: str
    unet: str
    trained: bool
    """False for random weights. Their masks mean nothing, so below fp32 the mask gates do not
    apply and the figures are only reported."""
    gamma: Positive
    timestep: Annotated[int, Meta(ge=0)]
    alpha_bar: Annotated[float, Meta(gt=0, lt=1)]
    timestep_levels: tuple[TimestepLevel, ...] | UnsetType = UNSET
    """The 2 to 256 timesteps that the enhancer can run, in ascending order. Its input `level` is an
    index into them, counted from 0. `timestep` is the one that runs unless the caller chooses
    another. Bundles that have them name the feature "timestep_levels". Absent means that the
    enhancer runs `timestep` only and has no such input."""


class FirstResize(_Record, frozen=True):
    """A resize before `resize`, as in the released GleSAM code. Its feature is "released_input"."""

    size: Annotated[int, Meta(ge=1)]
    """Both sides become this number of pixels, whatever the image's aspect ratio. The result is a
    uint8 image. It is at most `image_size`."""
    kernel: Literal["pillow_bicubic"]
    """Pillow's fixed-point bicubic filter on uint8, in the order of axes of pillow_bilinear."""


class Preprocessing(_Record, frozen=True):
    """How to turn an RGB uint8 image into the encoder's `image`, in this order of steps."""

    image_size: Annotated[int, Meta(ge=16)]
    """S, the side of the square graph input in pixels."""
    resize: Resize
    """longest_side: the longest side becomes S, the other floor(side * S / longest + 0.5).
    square: both sides become S, whatever the image's aspect ratio."""
    kernel: Literal["pillow_bilinear", "float_bilinear"]
    """Both are antialiased bilinear (triangle) filters.
    pillow_bilinear: Pillow's fixed-point filter on uint8. It resizes the width first, or the height
    first if the height loses more than twice as many pixels as the width.
    float_bilinear: the same filter without rounding to integers. The result is float32."""
    channel_order: Literal["RGB"]
    mean: tuple[Bounded, Bounded, Bounded]
    """Subtracted from each channel, whose values are 0 to 255."""
    std: tuple[Scale, Scale, Scale]
    """Each channel is divided by it after the subtraction."""
    pad: Literal["right_bottom", "none"]
    """right_bottom: zeros fill the normalised image up to S x S.
    none: the image already fills the square."""
    first_resize: FirstResize | UnsetType = UNSET
    """A step before `resize`, which then resizes its result. Bundles that have it name the feature
    "released_input" and have resize "square". Absent means no such step."""


class Stability(_Record, frozen=True):
    """When a mask counts as stable. It is measured on `low_res_masks`, before upscaling."""

    offset: Scale
    """The stability is the number of pixels above +offset divided by the number above -offset, or 1
    if no pixel is above -offset."""
    threshold: Annotated[float, Meta(ge=0, le=1)]
    """A mask with at least this stability is stable."""


class Postprocessing(_Record, frozen=True):
    """How to turn `low_res_masks` into masks at the image's own size, in this order of steps."""

    upscale: Literal["bilinear", "bilinear_direct"]
    """Bilinear interpolation with half-pixel centres and without antialiasing.
    bilinear: resize to S x S, crop the padding, resize to (H, W).
    bilinear_direct: resize to (H, W) in one step."""
    mask_threshold: Bounded
    """A pixel belongs to the mask if its logit is greater than this."""
    stability_offset: Scale
    """A mask's stability is its area at mask_threshold + stability_offset divided by its area at
    mask_threshold - stability_offset."""
    single_mask: Literal["first", "first_if_stable"]
    """Which of the four masks answers a prompt without multimask. (With multimask the last three
    do.) first: the first mask.
    first_if_stable: the first mask if it is stable by `stability`, otherwise the one of the last
    three that has the highest predicted IoU."""
    stability: Stability | None = None
    """The rule of first_if_stable. None for first."""
    low_res_limit: Scale | None = None
    """Limit of the logits that a caller receives and can pass back as `mask_input`: they are
    clipped to -limit..limit. Masks are computed from the unclipped logits."""


class EverythingThresholds(_Record, frozen=True):
    """Which masks everything-mode keeps by default, for a model that needs its own thresholds.

    A program without everything-mode ignores them.
    """

    pred_iou_thresh: Annotated[float, Meta(ge=0, le=1)]
    """Keep masks whose predicted IoU is greater."""
    stability_score_thresh: Annotated[float, Meta(ge=0, le=1)]
    """Keep masks whose stability is at least this."""
    stability_score_offset: Annotated[float, Meta(ge=0)]
    """The offset in logits of that stability, which is measured on the final mask."""


class Coordinates(_Record, frozen=True):
    """What the decoder's `point_coords` and `point_labels` contain."""

    order: Literal["xy"]
    space: Literal["resized_pixels"]
    """Pixels of the resized image: x * resized width / original width, and likewise for y."""
    pixel_offset: Annotated[float, Meta(extra_json_schema={"const": PIXEL_OFFSET})]
    """The graph adds it to each coordinate, so that (0, 0) is the centre of the first pixel."""
    labels: Annotated[dict[str, int], Meta(extra_json_schema={"const": PROMPT_LABELS})]
    """The values of `point_labels`: exactly PROMPT_LABELS."""
    box: Literal["two_points", "two_points_padded"]
    """A box is passed as two points, its corners. Points without a box are followed by one padding
    point. two_points: a prompt with a box has no padding point.
    two_points_padded: a prompt with a box has one too."""


class Source(_Record, frozen=True):
    """A file that the weights were read from."""

    role: str
    file: str
    sha256: Sha256


class Provenance(_Record, frozen=True):
    """Where the weights came from and which tools built the bundle. Informative."""

    sources: tuple[Source, ...]
    weights: str
    """The kind of source: "files", "packed", "built-in" or "random, seed 0"."""
    tools: dict[str, str]
    """Versions by package name."""


class StageError(_Record, frozen=True):
    """The difference between a stage's output and the reference's."""

    relative_l2: float
    max_abs: float


class ImageParity(_Record, frozen=True):
    """The figures of one verification image. `eps` is the output of the enhancer's U-Net."""

    image: str
    level: Level
    errors: dict[ParityOutput, StageError]
    mask_iou_mean: float
    mask_iou_worst: float
    timestep: int | UnsetType = UNSET
    """The timestep that the enhancer ran, in bundles with several of them."""


class Gate(_Record, frozen=True):
    """The accuracy limits of a precision. A figure whose limit is None is only reported.

    An export and the golden file apply `mask_iou_worst` to all masks. A calibration applies it to
    the masks whose object the float bundle finds.
    """

    stage_relative_l2: float | None
    mask_iou_mean: float | None
    mask_iou_worst: float | None


class Parity(_Record, frozen=True):
    """The accuracy that was measured when the bundle was written. Informative.

    An exported bundle is compared with the PyTorch reference, and a quantized bundle with the float
    bundle that it was made from. `backend` says which.
    """

    backend: str
    gate: Gate
    passed: bool
    images: tuple[ImageParity, ...]


class CalibrationSample(_Record, frozen=True):
    """An image that activation ranges were measured on.

    `sha256` is the hash of the text "height width " followed by the RGB bytes.
    """

    image: str
    sha256: Sha256
    level: Level


_ATTENTION = "Stages whose products of attention are in eight bits too. Absent means none."


class Calibration(_Record, frozen=True):
    """How a quantized bundle was made from a float bundle. Informative."""

    source: Sha256
    """The hash of the float bundle's manifest.json."""
    weights_only: tuple[StageName, ...]
    """The stages whose weights are stored in eight bits but which compute in float32."""
    method: Literal["mse", "min-max", "percentile", "entropy"]
    percentile: float | None
    """The parameter of method "percentile". None for the others."""
    smoothing: float | None
    """SmoothQuant's alpha. None means that smoothing was off."""
    seed: int
    """The seed that selected the images, their degradations and their prompts."""
    procedural: bool
    """Whether the images are procedural scenes, because the user gave none."""
    samples: tuple[CalibrationSample, ...]
    float_layers: dict[StageName, tuple[str, ...]]
    """The layers that could be quantized but were kept in float32."""
    attention: Annotated[tuple[StageName, ...], Meta(description=_ATTENTION)] | UnsetType = UNSET
    """The stages whose products of attention are in eight bits too. UNSET means none."""


_EVERYTHING = (
    "Default thresholds of everything-mode. Absent means those of segment_anything (predicted IoU "
    "0.88, stability 0.95, offset 1)."
)
_GATE = (
    "Which images to enhance by default. Absent means every image. A reader that does not know it "
    "enhances every image."
)
_REQUIRES = (
    "Names of features without which a reader would read this bundle wrongly. A reader refuses a "
    "bundle that names a feature it does not know. Absent means none."
)


class Manifest(_Record, frozen=True, kw_only=True):
    """The content of manifest.json. Readers ignore fields that they do not know."""

    format: Literal["glesam-bundle"]
    version: Literal[1]
    requires: Annotated[tuple[str, ...], Meta(description=_REQUIRES)] | UnsetType = UNSET
    """Names of features without which a reader would read this bundle wrongly. UNSET means none."""
    model: Model
    stages: dict[StageName, Stage]
    preprocessing: Preprocessing
    postprocessing: Postprocessing
    coordinates: Coordinates
    everything: Annotated[EverythingThresholds, Meta(description=_EVERYTHING)] | UnsetType = UNSET
    """Default thresholds of everything-mode. UNSET means those of segment_anything."""
    enhancement_gate: Annotated[EnhancementGate, Meta(description=_GATE)] | UnsetType = UNSET
    """Which images to enhance by default. UNSET means every image."""
    target: Target
    provenance: Provenance
    parity: Parity | None
    golden: FileRef
    calibration: Calibration | None = None
