"""The inference classes of annotation tools give the predictor's masks on the files for them.

`make test-interop` installs the tools and runs these tests. The model is the built-in nano, whose
256 pixels the files adapt to the 1,024 that most tools assume, and nano2 for SAM 2.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from glesam_export.console_output import step
from glesam_export.interop.tools import ToolName
from glesam_export.interop.write import write_for_tool
from glesam_runtime import GleSamPredictor, sample_image
from glesam_runtime.bundle import builtin_bundle_path, open_bundle
from glesam_runtime.compare import mask_iou

pytestmark = pytest.mark.interop

SAME = 0.99
"""The lowest IoU of tools that prepare images as the predictor does, up to their filter."""
SMALLER = 0.9
"""The lowest IoU of tools that fit images into 1024 x 684, so that the model sees the 4:3 sample
smaller than the predictor shows it."""
FILLING = 0.98
"""The same for an image of 3:2, which fills 1024 x 684."""
Files = Callable[..., Path]
POINTS = [[(445, 135)], [(120, 60)], [(395, 260)]]
BOXES = [(350, 213, 441, 323), (120, 4, 174, 78)]
X_ANYLABELING = Path(sys.prefix) / "x-anylabeling"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Return a function that writes the files for a tool, once per module."""
    made: dict[tuple[Any, ...], Path] = {}

    def write(tool: ToolName, bundle: Path | None = None) -> Path:
        folder = made.get((tool, bundle))
        if folder is None:
            folder = tmp_path_factory.mktemp(tool) / "files"
            write_for_tool(open_bundle(bundle or builtin_bundle_path()), folder, tool, step)
            made[tool, bundle] = folder
        return folder

    return write


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return sample_image()


@pytest.fixture(scope="module")
def predictor(image: np.ndarray) -> GleSamPredictor:
    predictor = GleSamPredictor()
    predictor.set_image(image)
    return predictor


@pytest.fixture(scope="module")
def predictor2(nano2_bundle: Path, image: np.ndarray) -> GleSamPredictor:
    predictor = GleSamPredictor(nano2_bundle)
    predictor.set_image(image)
    return predictor


def marks(points: Any = (), box: Any = None) -> list[dict[str, Any]]:
    """Return a prompt as AnyLabeling, samexporter and rembg spell it."""
    made: list[dict[str, Any]] = [
        {"type": "point", "data": [int(x), int(y)], "label": 1} for x, y in points
    ]
    if box is not None:
        made.append({"type": "rectangle", "data": [int(value) for value in box]})
    return made


PROMPTS = [{"points": points} for points in POINTS] + [{"box": box} for box in BOXES]


def wanted(predictor: GleSamPredictor, points: Any = (), box: Any = None) -> np.ndarray:
    """Return the predictor's mask: one point has the best of three, other prompts the single."""
    coords = np.asarray(points, np.float32) if len(points) else None
    labels = None if coords is None else np.ones(len(coords))
    one_point = box is None and len(points) == 1
    found, scores, _ = predictor.predict(
        coords,
        labels,
        box=None if box is None else np.asarray(box),
        multimask_output=one_point,
    )
    mask: np.ndarray = found[int(np.argmax(scores))]
    return mask


def load_alone(package: str, *modules: str) -> list[ModuleType]:
    """Import modules of a package whose own __init__ needs a window system."""
    parts = package.split(".")
    for end in range(1, len(parts) + 1):
        name = ".".join(parts[:end])
        if name not in sys.modules:
            places = [str(Path(root, *parts[:end])) for root in sys.path]
            stand_in = ModuleType(name)
            stand_in.__path__ = [place for place in places if Path(place).is_dir()]
            sys.modules[name] = stand_in
    return [importlib.import_module(f"{package}.{module}") for module in modules]


def forget(package: str) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        del sys.modules[name]


def assert_iou(found: list[float], lowest: float, tool: str) -> None:
    print(f"{tool}: IoU with the predictor, mean {np.mean(found):.4f}, worst {min(found):.4f}")
    assert min(found) >= lowest


def test_samexporter(files: Files, predictor: GleSamPredictor, image: np.ndarray) -> None:
    from samexporter.sam_onnx import SegmentAnythingONNX

    folder = files("samexporter")
    tool = SegmentAnythingONNX(str(folder / "encoder.onnx"), str(folder / "decoder.onnx"))
    embedding = tool.encode(image[..., ::-1].copy())
    found = [
        mask_iou(
            tool.predict_masks(embedding, marks(**prompt))[0, 0] > 0, wanted(predictor, **prompt)
        )
        for prompt in PROMPTS
    ]
    assert_iou(found, SAME, "samexporter")


@pytest.mark.parametrize("tool_name", ["samexporter", "anylabeling", "x-anylabeling"])
def test_sam2_split(
    tool_name: str,
    files: Files,
    predictor2: GleSamPredictor,
    nano2_bundle: Path,
    image: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forget("anylabeling")
    arguments: tuple[Any, ...] = ()
    if tool_name == "samexporter":
        from samexporter import sam2_onnx as module
    elif tool_name == "anylabeling":
        (module,) = load_alone("anylabeling.services.auto_labeling", "sam2_onnx")
    else:
        monkeypatch.syspath_prepend(str(X_ANYLABELING))
        (module,) = load_alone("anylabeling.services.auto_labeling.__base__", "sam2")
        arguments = ("cpu",)
    folder = files("samexporter" if tool_name == "samexporter" else "anylabeling", nano2_bundle)
    paths = str(folder / "encoder.onnx"), str(folder / "decoder.onnx")
    tool = module.SegmentAnything2ONNX(*paths, *arguments)
    # samexporter's and AnyLabeling's classes take BGR. AnyLabeling's window passes RGB.
    embedding = tool.encode(image if tool_name == "x-anylabeling" else image[..., ::-1].copy())
    found = []
    for prompt in PROMPTS:
        mask = tool.predict_masks(embedding, marks(**prompt))[0, 0] > 0
        found.append(mask_iou(mask, wanted(predictor2, **prompt)))
    assert_iou(found, SAME, f"{tool_name} with SAM 2")


@pytest.mark.parametrize("tool_name", ["anylabeling", "x-anylabeling"])
def test_anylabeling(
    tool_name: str,
    files: Files,
    predictor: GleSamPredictor,
    image: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forget("anylabeling")
    if tool_name == "x-anylabeling":
        monkeypatch.syspath_prepend(str(X_ANYLABELING))
    (module,) = load_alone("anylabeling.services.auto_labeling", "sam_onnx")
    folder = files("anylabeling")
    config = yaml.safe_load((folder / f"{tool_name}.yaml").read_text())
    assert config["type"] == "segment_anything"
    paths = [str(folder / config[f"{stage}_model_path"]) for stage in ("encoder", "decoder")]
    three_to_two = np.ascontiguousarray(image[: image.shape[1] * 2 // 3])
    cropped = predictor.share()
    cropped.set_image(three_to_two)
    for picture, reference, lowest in (
        (image, predictor, SMALLER),
        (three_to_two, cropped, FILLING),
    ):
        tool = module.SegmentAnythingONNX(*paths)  # X-AnyLabeling's encodes one image
        embedding = tool.encode(picture)
        found = [
            mask_iou(
                tool.predict_masks(embedding, marks(**prompt))[0, 0] > 0,
                wanted(reference, **prompt),
            )
            for prompt in PROMPTS
        ]
        assert_iou(found, lowest, f"{tool_name}, {picture.shape[1]} x {picture.shape[0]}")


def test_rembg(
    files: Files, predictor: GleSamPredictor, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    monkeypatch.setenv("REMBG_HOME", str(files("rembg")))
    monkeypatch.delenv("U2NET_HOME", raising=False)
    (module,) = load_alone("rembg.sessions", "sam")
    session = module.SamSession("sam", onnxruntime.SessionOptions())
    found = []
    for prompt in PROMPTS:
        (mask,) = session.predict(Image.fromarray(image), sam_prompt=marks(**prompt))
        found.append(mask_iou(np.asarray(mask) > 0, wanted(predictor, **prompt)))
    assert_iou(found, SMALLER, "rembg")


@pytest.mark.parametrize("family", ["sam", "sam2"])
def test_labelme(
    family: str,
    files: Files,
    predictor: GleSamPredictor,
    predictor2: GleSamPredictor,
    nano2_bundle: Path,
    image: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = files("labelme", nano2_bundle if family == "sam2" else None)
    monkeypatch.syspath_prepend(str(folder))
    sys.modules.pop("labelme_glesam", None)
    launcher = importlib.import_module("labelme_glesam")
    model = launcher.register()
    (module,) = load_alone("labelme._automation", "_osam_session")
    session = module.OsamSession(model.name)
    expected = predictor2 if family == "sam2" else predictor
    found = []
    for prompt in PROMPTS[:3]:
        points = np.asarray(prompt["points"], np.float32)
        answer = session.run(image, "sample", points, np.ones(len(points), np.intp))
        (annotation,) = answer.annotations
        mask = np.zeros(image.shape[:2], bool)
        box = annotation.bounding_box
        mask[box.ymin : box.ymax + 1, box.xmin : box.xmax + 1] = annotation.mask
        found.append(mask_iou(mask, wanted(expected, **prompt)))
    assert_iou(found, SAME, f"labelme with {family}")
