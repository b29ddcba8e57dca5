"""Holds a tool's graphs against the bundle that they were made from, by the export's gates.

The image is that of the golden file, prepared as the tool prepares images. The prompts are the
golden ones, and the first point of each alone. The bundle's own three graphs run on the same image,
and `glesam_runtime.masks` turns their logits into masks. Half-precision graphs of both sides are
emulated, as in the export's verification.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from PIL import Image

from glesam_calibration.graph_files import save_graph
from glesam_export.emulate import emulated, to_float32
from glesam_export.interop.tools import EMBEDDINGS, Interface, Masks
from glesam_export.verify.reference_outputs import Step
from glesam_runtime import chain, compare, masks
from glesam_runtime.backends.loading import load_engine
from glesam_runtime.bundle import Bundle, load_golden
from glesam_runtime.engine_libraries import import_onnxruntime
from glesam_runtime.errors import ParityError
from glesam_runtime.image import Geometry, geometry_of, preprocess, resized_size
from glesam_runtime.manifest import STAGES, Gate

Array = NDArray[np.float32]
_FEW_POINTS = 2


@dataclass(frozen=True)
class Agreement:
    """How far a tool's graphs are from the bundle."""

    gate: Gate
    encoder_relative_l2: float
    """The largest of the encoder's outputs."""
    decoder_relative_l2: float
    """The larger of logits and predicted IoU, both decoders on the bundle's features."""
    mask_iou_mean: float
    mask_iou_worst: float
    """Of the masks at the image's size, each side on its own features."""

    def failures(self) -> list[str]:
        """Return what is outside the gate, one line each."""
        errors = {"encoder": self.encoder_relative_l2, "decoder": self.decoder_relative_l2}
        return compare.failures(self.gate, errors, self.mask_iou_mean, self.mask_iou_worst)


def measure(
    bundle: Bundle, folder: Path, interface: Interface, kept: Masks, points: int | None, step: Step
) -> Agreement:
    """Run the graphs in `folder` and those of the bundle.

    Args:
        bundle: the bundle.
        folder: contains the tool's two graphs.
        interface: of these graphs.
        kept: the masks of the tool's decoder.
        points: the decoder's fixed number of points, or None.
        step: reports long steps.
    """
    precision = compare.coarsest([bundle.manifest.stages[stage].precision for stage in STAGES])
    gate = compare.gate_for(precision, bundle.manifest.model.trained)
    with tempfile.TemporaryDirectory() as name:
        encoder, decoder = folder / interface.encoder.file, folder / interface.decoder.file
        if precision == "fp16":
            (rounded := Path(name) / "bundle").mkdir()
            golden_of, bundle = bundle, emulated(bundle, rounded)
            encoder, decoder = (_rounded(path, Path(name)) for path in (encoder, decoder))
        else:
            golden_of = bundle
        given = _Given(golden_of, interface, points)
        with step("the bundle's own graphs"):
            features, answers = _run_bundle(bundle, given)
        with step("the tool's graphs"):
            mine, theirs = _run_tool(encoder, decoder, interface, given, features)
    return _agreement(gate, bundle, given, kept, (features, answers), (mine, theirs))


def require(agreement: Agreement, what: str) -> None:
    """Raise an error unless the graphs pass the gate.

    Raises:
        ParityError: naming the figures outside the gate.
    """
    if problems := agreement.failures():
        raise ParityError(f"{what}: outside the bundle's gate: {'; '.join(problems)}")


Answer = dict[str, Array]
"""The outputs of a decoder by the contract's names; a tool's also has "masks"."""


class _Given:
    """The golden image and prompts, for the bundle and in the form of a tool."""

    def __init__(self, bundle: Bundle, interface: Interface, points: int | None) -> None:
        self.interface = interface
        self.rules = bundle.manifest.preprocessing
        golden = load_golden(bundle)
        image: NDArray[np.uint8] = golden["image"].astype(np.uint8)
        height, width = image.shape[:2]
        size = self.rules.image_size
        self.square = interface.encoder.square or size
        self.geometry: Geometry = geometry_of(height, width, size, self.rules.resize)
        if interface.encoder.layout == "NCHW":
            self.tensor = preprocess(image, self.rules).tensor
            self.tool_image: Array = self.tensor
        else:
            new_height, new_width = resized_size(height, width, self.square)
            resized = Image.fromarray(image).resize(
                (new_width, new_height), Image.Resampling.BILINEAR
            )
            self.tool_image = np.asarray(resized, np.float32)
            self.tensor = self._prepared(self.tool_image)
        coords, labels = golden["point_coords"], golden["point_labels"]
        # [B, P]; the alone ones first, since a prompt of one point makes the graph choose a mask.
        alone = [(c[:1], t[:1]) for c, t in zip(coords, labels, strict=True) if t[0] in (0, 1)]
        whole = [(c[t != -1], t[t != -1]) for c, t in zip(coords, labels, strict=True)]
        self.prompts = [_padded(*prompt, points) for prompt in (*alone, *whole)]

    def _prepared(self, image: Array) -> Array:
        """Normalise and pad an image of the tool's square, and scale the square to S."""
        size, square = self.rules.image_size, self.square
        tensor = np.zeros((1, 3, size, size), np.float32)
        for channel, (mean, std) in enumerate(zip(self.rules.mean, self.rules.std, strict=True)):
            plane = np.zeros((square, square), np.float32)
            plane[: image.shape[0], : image.shape[1]] = (image[..., channel] - mean) / std
            if square != size:
                scaled = Image.fromarray(plane).resize((size, size), Image.Resampling.BILINEAR)
                plane = np.asarray(scaled, np.float32)
            tensor[0, channel] = plane
        return tensor

    def bundle_prompts(self) -> Iterator[dict[str, Array]]:
        """Yield the decoder's prompt inputs as the contract has them."""
        side = self.rules.image_size // 4
        for coords, labels in self.prompts:
            yield {
                "point_coords": coords[None],
                "point_labels": labels[None],
                "mask_input": np.zeros((1, 1, side, side), np.float32),
                "has_mask_input": np.zeros(1, np.float32),
            }

    def tool_prompts(self) -> Iterator[dict[str, NDArray[np.generic]]]:
        """Yield the decoder's prompt inputs as the tool passes them."""
        form = self.interface.decoder
        side = form.mask_side or self.rules.image_size // 4
        dtype = np.int64 if form.size_input == "int64" else np.float32
        for coords, labels in self.prompts:
            end = -1 if form.pads_points else None
            factor = np.float32(self.square / self.rules.image_size)
            made: dict[str, NDArray[np.generic]] = {
                "point_coords": coords[None, :end] * factor,
                "point_labels": labels[None, :end],
                "mask_input": np.zeros((1, 1, side, side), np.float32),
                "has_mask_input": np.zeros(1, np.float32),
            }
            if form.size_input:
                made["orig_im_size"] = np.asarray(self.geometry.original, dtype)
            yield made


def _padded(
    coords: NDArray[np.generic], labels: NDArray[np.generic], points: int | None
) -> tuple[Array, Array]:
    """Append padding points: one, or as many as `points` asks for."""
    missing = 1 if points is None else max(points - len(labels), 0)
    if points is not None:
        coords, labels = coords[:points], labels[:points]
    return (
        np.concatenate([coords, np.zeros((missing, 2))]).astype(np.float32),
        np.concatenate([labels, np.full(missing, -1)]).astype(np.float32),
    )


def _run_bundle(bundle: Bundle, given: _Given) -> tuple[Answer, list[Answer]]:
    """Run the bundle, one stage in memory at a time."""
    manifest = bundle.manifest
    engine = load_engine(bundle, "onnxruntime", stages=["encoder"])
    features: dict[str, Array] = {
        name: np.array(engine.to_host(value))
        for name, value in chain.encode(engine, manifest, given.tensor).items()
    }
    engine = load_engine(bundle, "onnxruntime", stages=["enhancer"])
    enhanced = chain.enhance(engine, manifest, features)
    features[EMBEDDINGS] = np.array(engine.to_host(enhanced[EMBEDDINGS]))
    engine = load_engine(bundle, "onnxruntime", stages=["decoder"])
    answers = []
    for prompts in given.bundle_prompts():
        low_res, iou = chain.decode(engine, features, prompts)
        answers.append({"low_res_masks": np.array(low_res), "iou_predictions": np.array(iou)})
    return features, answers


def _run_tool(
    encoder: Path, decoder: Path, interface: Interface, given: _Given, features: Answer
) -> tuple[Answer, list[tuple[Answer, Answer]]]:
    """Run the tool's graphs: the decoder on the bundle's features, then on the tool's."""
    ort = import_onnxruntime()
    session = ort.InferenceSession(str(encoder), providers=["CPUExecutionProvider"])
    outputs = session.run(None, {interface.encoder.image: given.tool_image})
    mine = dict(zip(interface.encoder.outputs, outputs, strict=True))
    session = ort.InferenceSession(str(decoder), providers=["CPUExecutionProvider"])
    names = interface.decoder.features
    answers = []
    for prompts in given.tool_prompts():
        both = []
        for source in (features, mine):
            feeds = {theirs: source[ours] for ours, theirs in names.items()}
            found = session.run(None, {**feeds, **prompts})
            both.append(dict(zip(interface.decoder.outputs, found, strict=True)))
        answers.append((both[0], both[1]))
    return mine, answers


def _agreement(
    gate: Gate,
    bundle: Bundle,
    given: _Given,
    kept: Masks,
    wanted: tuple[Answer, list[Answer]],
    found: tuple[Answer, list[tuple[Answer, Answer]]],
) -> Agreement:
    """Compute the figures."""
    features, answers = wanted
    encoder = [compare.relative_l2(found[0][name], features[name]) for name in features]
    decoder, ious = [], []
    for (staged, chained), answer, (_, labels) in zip(
        found[1], answers, given.prompts, strict=True
    ):
        chosen = _chosen(kept, answer["iou_predictions"][0], len(labels))
        low_res = answer["low_res_masks"][:, chosen]
        logits = "low_res_masks" if given.interface.decoder.size_input else "masks"
        decoder.append(compare.relative_l2(staged[logits], low_res))
        iou = answer["iou_predictions"][:, chosen]
        decoder.append(compare.relative_l2(staged["iou_predictions"], iou))
        expected = _binary(bundle, given, low_res)
        if logits == "masks":
            actual = _binary(bundle, given, chained["masks"])
        else:
            actual = chained["masks"] > 0
        ious += [compare.mask_iou(*pair) for pair in zip(actual[0], expected[0], strict=True)]
    return Agreement(gate, max(encoder), max(decoder), float(np.mean(ious)), min(ious))


def _binary(bundle: Bundle, given: _Given, low_res: Array) -> NDArray[np.bool_]:
    return masks.binarize(low_res, given.geometry, bundle.manifest.postprocessing).masks


def _chosen(kept: Masks, iou: Array, points: int) -> list[int]:
    """Return the numbers of the masks that the tool gets for a prompt of this many points."""
    if kept == "four":
        return [0, 1, 2, 3]
    if kept == "three":
        return [1, 2, 3]
    return [1 + int(np.argmax(iou[1:]))] if points <= _FEW_POINTS else [0]


def _rounded(path: Path, folder: Path) -> Path:
    """Write a half-precision graph that computes in float32 with the same roundings."""
    model = ir.load(path)
    to_float32(model.graph)
    save_graph(model, folder / path.name)
    return folder / path.name
