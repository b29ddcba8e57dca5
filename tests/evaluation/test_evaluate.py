"""Test the protocol: all segmenters get the same images and prompts."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy import ndimage

from glesam_evaluation.conditions import (
    CONDITIONS,
    DEFAULT,
    SEVERITY,
    parse_conditions,
    show,
    show_with_masks,
)
from glesam_evaluation.datasets import Sample, open_dataset
from glesam_evaluation.degrade import RELEASED, UNSEEN, VISIBILITY, degrade, degrade_single
from glesam_evaluation.metrics import iou, pixel_accuracy, sharpness
from glesam_evaluation.plot import draw
from glesam_evaluation.prompting import draw_prompts, parse_prompt_kinds, tight_box
from glesam_evaluation.protocol import EvaluationPlan, Row, evaluate
from glesam_evaluation.quality_plot import draw_quality
from glesam_evaluation.results import Results, describe_model, markdown, read_results
from glesam_evaluation.scenes import make_scene
from glesam_evaluation.seeds import derive
from glesam_evaluation.segmenters import bundle_segmenters, with_and_without
from glesam_runtime import GleSamPredictor, open_bundle
from glesam_runtime.errors import InputError
from glesam_runtime.manifest import Coordinates, Postprocessing, Preprocessing

HEIGHT, WIDTH = 40, 48
ALL_PROMPTS = ("1-point", "3-point", "10-point", "box", "noise-box")


class Watched:
    """A segmenter that records its images and returns boxes as masks."""

    def __init__(self) -> None:
        self.images: list[np.ndarray] = []
        self.prompts: list[tuple[np.ndarray | None, ...]] = []
        self.largest = 0

    def set_image(self, image: np.ndarray) -> None:
        self.images.append(image.copy())

    def segment(self, points, labels, boxes) -> np.ndarray:
        self.prompts.append((points, labels, boxes))
        given = boxes if points is None else points
        self.largest = max(self.largest, len(given))
        masks = np.zeros((len(given), HEIGHT, WIDTH), np.bool_)
        for mask, one in zip(masks, given, strict=True):
            corners = np.round(one).astype(int).reshape(-1, 2)
            (x0, y0), (x1, y1) = corners.min(axis=0), corners.max(axis=0)
            mask[y0 : y1 + 1, x0 : x1 + 1] = True
        return masks


class Perfect(Watched):
    """A segmenter that returns the true box, which is exact for rectangles."""

    def segment(self, points, labels, boxes) -> np.ndarray:
        masks = np.zeros((len(boxes), HEIGHT, WIDTH), np.bool_)
        for mask, (x0, y0, x1, y1) in zip(masks, boxes.astype(int), strict=True):
            mask[y0:y1, x0:x1] = True
        return masks


class Tiles(list):
    """A dataset in memory: images of noise with rectangles as objects."""

    def __init__(self, images: int = 2, objects: int = 3) -> None:
        super().__init__(self.make(number, objects) for number in range(images))

    @property
    def names(self) -> list[str]:
        return [sample.name for sample in self]

    @staticmethod
    def make(number: int, objects: int) -> Sample:
        rng = np.random.default_rng(number)
        image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        masks = np.zeros((objects, HEIGHT, WIDTH), np.bool_)
        for index, mask in enumerate(masks):
            mask[index : index + 12, index : index + 9] = True
        return Sample(f"tile-{number}", image, masks)


def by_key(rows: list[Row]) -> dict[tuple, tuple]:
    keyed = {
        (row.image, row.mask, row.condition, row.prompt, row.segmenter): (
            row.iou,
            row.dice,
            row.pixel_accuracy,
            row.boundary_iou,
        )
        for row in rows
    }
    assert len(keyed) == len(rows)
    return keyed


def test_every_segmenter_sees_the_same_images_and_prompts() -> None:
    one, other = Watched(), Watched()
    plan = EvaluationPlan(ALL_PROMPTS, CONDITIONS)
    rows = evaluate({"one": one, "other": other}, Tiles(), plan)
    assert len(rows) == 2 * 3 * len(CONDITIONS) * len(ALL_PROMPTS) * 2
    np.testing.assert_array_equal(one.images, other.images)
    assert len(one.images) == 2 * len(CONDITIONS)
    for mine, theirs in zip(one.prompts, other.prompts, strict=True):
        for left, right in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(left, right)
    # Prompts do not change with the condition either: only what is seen does.
    kinds = len(ALL_PROMPTS)
    for mine, later in zip(one.prompts[:kinds], one.prompts[kinds : 2 * kinds], strict=True):
        for left, right in zip(mine, later, strict=True):
            np.testing.assert_array_equal(left, right)


def test_a_row_does_not_depend_on_what_else_is_evaluated() -> None:
    everything = by_key(
        evaluate({"a": Watched()}, Tiles(), EvaluationPlan(ALL_PROMPTS, CONDITIONS))
    )
    some = EvaluationPlan(("box", "3-point"), ("haze", "LQ-3", "clear"))
    fewer = evaluate({"b": Watched(), "a": Watched()}, Tiles(), some)
    for key, figures in by_key(fewer).items():
        if key[-1] == "a":
            assert everything[key] == figures
    (last,) = Tiles()[1:]
    alone = Tiles(0)
    alone.append(last)
    for key, figures in by_key(evaluate({"a": Watched()}, alone, some)).items():
        assert everything[key] == figures


def test_a_seed_decides_and_max_masks_keeps_what_it_takes() -> None:
    def run(**options: object) -> dict[tuple, tuple]:
        return by_key(evaluate({"a": Watched()}, Tiles(objects=9), EvaluationPlan(**options)))

    assert run() == run()
    assert run() != run(seed=1)
    everything, some, fewer = run(), run(max_masks=5), run(max_masks=2)
    assert some.items() < everything.items()
    assert fewer.items() < some.items()
    assert len({key[1] for key in some if key[0] == "tile-0"}) == 5
    assert {key[1] for key in run(seed=1, max_masks=5)} != {key[1] for key in some}
    assert {key[0] for key in run(limit=1)} == {"tile-0"}


def test_many_objects_come_in_parts() -> None:
    watched = Watched()
    rows = evaluate(
        {"a": watched}, Tiles(1, 25), EvaluationPlan(("box", "3-point"), ("clear",), max_masks=25)
    )
    assert len(rows) == 50
    assert watched.largest == 16


def test_figures_are_those_of_the_masks() -> None:
    plan = EvaluationPlan(("box", "noise-box"), ("clear", "LQ-1"))
    dataset = Tiles()
    rows = evaluate({"box": Perfect()}, dataset, plan)
    assert all(
        (row.iou, row.dice, row.pixel_accuracy) == (1, 1, 1) for row in rows if row.prompt == "box"
    )
    watched = Watched()
    rows = evaluate({"a": watched}, dataset, EvaluationPlan(("3-point",), ("clear",)))
    predicted = watched.segment(*watched.prompts[0])
    for row, mask, truth in zip(rows, predicted, dataset[0].masks, strict=False):
        assert row.iou == iou(mask, truth)
        assert row.pixel_accuracy == pixel_accuracy(mask, truth)


def test_prompts_are_drawn_from_the_masks() -> None:
    masks = Tiles()[0].masks
    drawn = {kind: draw_prompts(masks, [0, 1, 2], kind, 0, "x") for kind in ALL_PROMPTS}
    ten = drawn["10-point"].points
    assert ten is not None
    x, y = np.moveaxis(ten.astype(int), 2, 0)
    assert masks[np.arange(3)[:, None], y, x].all()
    for count in (1, 3):
        fewer = drawn[f"{count}-point"]
        np.testing.assert_array_equal(fewer.points, ten[:, :count])
        np.testing.assert_array_equal(fewer.labels, np.ones((3, count)))
    boxes, noisy = drawn["box"].boxes, drawn["noise-box"].boxes
    np.testing.assert_array_equal(boxes, [tight_box(mask) for mask in masks])
    assert (boxes != noisy).any(axis=1).all()
    assert (np.abs(boxes - noisy) <= 0.2 * np.asarray([9, 12, 9, 12])).all()
    # The prompt of a mask does not depend on the other masks.
    alone = draw_prompts(masks[2:], [2], "noise-box", 0, "x").boxes
    np.testing.assert_array_equal(alone, noisy[2:])


def test_conditions_are_those_of_degrade() -> None:
    image = Tiles()[0].image
    drawn = derive(3, "name", "degradation")
    assert show(image, "clear", 3, "name") is image
    for level in (1, 2, 3):
        np.testing.assert_array_equal(
            show(image, f"LQ-{level}", 3, "name"), degrade(image, level, drawn)
        )
        np.testing.assert_array_equal(
            show(image, f"LQ-{level}", 3, "name", RELEASED), degrade(image, level, drawn, RELEASED)
        )
    for kinds, severity in ((UNSEEN, 1.0), (VISIBILITY, SEVERITY)):
        for kind in kinds:
            np.testing.assert_array_equal(
                show(image, kind, 3, "name"), degrade_single(image, kind, severity, drawn)
            )
    assert derive(3, "name", "degradation") != derive(3, "other", "degradation")
    assert derive(0, "a", 1) == 7135187249400549780  # on every machine


def test_names_of_conditions_and_prompts() -> None:
    assert parse_conditions("clear, lq-3,unseen,Fog") == ("clear", "LQ-3", *UNSEEN)
    assert parse_conditions("visibility,ISO_noise,haze") == (*VISIBILITY, "iso_noise")
    assert parse_conditions(",".join(CONDITIONS)) == CONDITIONS
    assert parse_prompt_kinds("1-points, 03-point,BOX,noise-box,box") == (
        "1-point",
        "3-point",
        "box",
        "noise-box",
    )


@pytest.mark.parametrize("text", ["", ",", "smog", "LQ-4", "clear,LQ"])
def test_unknown_conditions_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="LQ-1, LQ-2, LQ-3"):
        parse_conditions(text)


@pytest.mark.parametrize("text", ["", "0-point", "11-point", "3", "-1-point", "mask", "box,x"])
def test_unknown_prompts_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="1-point to 10-point, box or noise-box"):
        parse_prompt_kinds(text)


class Edge(list):
    """A dataset of one image, whose one object is a pixel in the corner."""

    names = ("edge",)

    def __init__(self) -> None:
        mask = np.zeros((1, HEIGHT, WIDTH), np.bool_)
        mask[0, 0, 0] = True
        super().__init__([Sample("edge", np.full((HEIGHT, WIDTH, 3), 9, np.uint8), mask)])


def test_truth_and_prompts_move_where_the_image_is_warped() -> None:
    watched = Watched()
    plan = EvaluationPlan(("box",), ("elastic_transform", "clear"))
    evaluate({"a": watched}, Tiles(1), plan)
    (sample,) = Tiles(1)
    shown, moved = show_with_masks(sample.image, sample.masks, "elastic_transform", 0, sample.name)
    np.testing.assert_array_equal(watched.images[0], shown)
    assert (moved != sample.masks).any()
    for masks, (_, _, boxes) in zip((moved, sample.masks), watched.prompts, strict=True):
        np.testing.assert_array_equal(boxes, [tight_box(mask) for mask in masks])


def test_an_object_that_a_warp_pushes_out_is_left_out() -> None:
    counts = {
        len(
            evaluate(
                {"a": Watched()},
                Edge(),
                EvaluationPlan(("1-point",), ("clear", "elastic_transform"), seed),
            )
        )
        for seed in range(12)
    }
    assert counts == {1, 2}


def test_a_plan_chooses_the_recipe() -> None:
    watched = Watched()
    evaluate({"a": watched}, Tiles(1), EvaluationPlan(("box",), ("LQ-2",), recipe="released"))
    expected = degrade(Tiles(1)[0].image, 2, derive(0, "tile-0", "degradation"), RELEASED)
    np.testing.assert_array_equal(watched.images[0], expected)


def test_bad_plans_are_refused() -> None:
    tiles = Tiles()
    for bad in (
        lambda: EvaluationPlan(max_masks=0),
        lambda: EvaluationPlan(limit=0),
        lambda: EvaluationPlan(recipe="real"),
        lambda: EvaluationPlan(empty=0.5),
        lambda: evaluate({}, tiles),
        lambda: evaluate({"a": Watched()}, tiles, EvaluationPlan(prompts=())),
        lambda: evaluate({"a": Watched()}, tiles, EvaluationPlan(conditions=())),
        lambda: evaluate({"a": Watched()}, tiles, EvaluationPlan(conditions=("smog",))),
        lambda: evaluate({"a": Watched()}, tiles, EvaluationPlan(prompts=("mask",))),
        lambda: evaluate({"a": Watched()}, tiles, EvaluationPlan(seed=-1)),
    ):
        with pytest.raises(InputError):
            bad()


def test_progress_counts_images() -> None:
    told: list[tuple[int, int]] = []
    evaluate(
        {"a": Watched()},
        Tiles(3),
        EvaluationPlan(conditions=("clear",), limit=2),
        lambda done, of: told.append((done, of)),
    )
    assert told == [(1, 2), (2, 2)]


# A real bundle


def test_a_bundle_segments_as_its_predictor_does() -> None:
    bundle = open_bundle(None)
    sample = open_dataset("scenes:1")[0]
    image, truth = sample.image[:200], sample.masks[:1, :200]
    segmenters = bundle_segmenters(bundle)
    assert list(segmenters) == ["without enhancer", "with enhancer"]
    prompts = [draw_prompts(truth, [0], kind, 0, "x") for kind in ("3-point", "noise-box")]
    found: dict[bool, list[np.ndarray]] = {}
    for enhance, segmenter in zip((False, True), segmenters.values(), strict=True):
        predictor = GleSamPredictor(bundle, enhance=enhance)
        predictor.set_image(image)
        segmenter.set_image(image)
        found[enhance] = [segmenter.segment(p.points, p.labels, p.boxes) for p in prompts]
        for prompt, masks in zip(prompts, found[enhance], strict=True):
            expected, _, _ = predictor.predict(
                prompt.points, prompt.labels, prompt.boxes, multimask_output=False
            )
            np.testing.assert_array_equal(masks, expected)  # of one prompt
    assert any((a != b).any() for a, b in zip(found[False], found[True], strict=True))


class Counted:
    """Stages that only count their runs."""

    preprocessing = Preprocessing(
        64, "longest_side", "pillow_bilinear", "RGB", (0, 0, 0), (1, 1, 1), "right_bottom"
    )
    postprocessing = Postprocessing("bilinear", 0.0, 1.0, "first")
    coordinates = Coordinates("xy", "resized_pixels", 0.5, {}, "two_points")

    def __init__(self) -> None:
        self.runs: list[str] = []

    def encode(self, image: np.ndarray) -> str:
        assert image.shape == (1, 3, 64, 64)
        self.runs.append("encode")
        return "z_L"

    def enhance(self, embeddings: str) -> str:
        assert embeddings == "z_L"
        self.runs.append("enhance")
        return "z_H"

    def decode(
        self, embeddings: str, prompts: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        self.runs.append(f"decode {embeddings}")
        count = len(prompts["point_labels"])
        logits = np.full((count, 4, 16, 16), -1, np.float32)
        logits[:, 0] = 1  # the single mask is everything, the other three nothing
        return logits, np.zeros((count, 4), np.float32)


def test_an_image_is_encoded_once_for_both_and_the_first_mask_taken() -> None:
    stages = Counted()
    segmenters = with_and_without(stages)
    with pytest.raises(InputError, match="no image is set"):
        segmenters["with enhancer"].segment(np.ones((1, 1, 2)), np.ones((1, 1)), None)
    plan = EvaluationPlan(("3-point", "box"), ("clear", "haze"), limit=1)
    rows = evaluate(segmenters, Tiles(), plan)
    once = ["encode", *["decode z_L"] * 2, "enhance", *["decode z_H"] * 2]
    assert stages.runs == once * 2
    assert {row.iou for row in rows} == {9 * 12 / (HEIGHT * WIDTH)}


def test_neither_torch_nor_matplotlib_is_imported() -> None:
    script = (
        "import sys\n"
        "sys.modules.update(torch=None, onnx=None, matplotlib=None)\n"
        "import glesam_evaluation.protocol, glesam_evaluation.plot, glesam_evaluation.datasets\n"
        "import glesam_evaluation.prompting\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


# Reports


def results(
    conditions: tuple[str, ...] = DEFAULT, prompts: tuple[str, ...] = ALL_PROMPTS
) -> Results:
    rows = evaluate(
        {"plain": Watched(), "better": Watched()}, Tiles(), EvaluationPlan(prompts, conditions)
    )
    return Results("toy: a toy", "tiles", 0, tuple(rows))


def test_means_are_numpys() -> None:
    found = results()
    for mean in found.means():
        parts = {
            "LQ mean": ("LQ-1", "LQ-2", "LQ-3"),
            "unseen mean": tuple(UNSEEN),
            "visibility mean": tuple(VISIBILITY),
        }.get(mean.condition, (mean.condition,))
        rows = [
            row
            for row in found.rows
            if (row.segmenter, row.prompt) == (mean.segmenter, mean.prompt)
            and row.condition in parts
        ]
        assert mean.masks == len(rows) == 6 * len(parts)
        for metric in ("iou", "dice", "pixel_accuracy", "boundary_iou"):
            expected = np.mean([getattr(row, metric) for row in rows])
            assert getattr(mean, metric) == pytest.approx(expected)


def test_the_table_is_the_papers() -> None:
    found = results()
    text = markdown(found)
    lines = text.splitlines()
    assert lines[0] == "toy: a toy"
    assert "6 masks in 2 images of tiles, seed 0" in text
    assert [line for line in lines if line.startswith("#")] == [
        "## IoU",
        "## Dice",
        "## PA",
        "## Boundary IoU",
    ]
    start = lines.index("## IoU") + 2
    head, rule, *rows = lines[start : start + 2 + 2 * len(ALL_PROMPTS)]
    cells = [cell.strip() for cell in head.strip("|").split("|")]
    assert cells[2:] == ["LQ-3", "LQ-2", "LQ-1", "LQ mean", "clear", "unseen mean"]
    assert set(rule) <= set("|-: ")
    assert len({len(line) for line in (head, rule, *rows)}) == 1
    means = {(m.segmenter, m.prompt, m.condition): m.iou for m in found.means()}
    for row in rows:
        prompt, segmenter, *figures = (cell.strip() for cell in row.strip("|").split("|"))
        for column, figure in zip(cells[2:], figures, strict=True):
            assert float(figure) == pytest.approx(100 * means[segmenter, prompt, column], abs=0.006)


@pytest.mark.parametrize(
    ("conditions", "columns"),
    [
        (("clear",), ["clear"]),
        (("haze", "LQ-1", "clear"), ["LQ-1", "clear", "haze"]),
        (("blur", "LQ-1", "LQ-3"), ["LQ-3", "LQ-1", "blur"]),
        (
            CONDITIONS,
            ["LQ-3", "LQ-2", "LQ-1", "LQ mean", "clear", "unseen mean", "visibility mean"],
        ),
        (("fog", "snow", "clear"), ["clear", "snow", "fog"]),
    ],
)
def test_a_mean_stands_only_where_all_of_it_ran(
    conditions: tuple[str, ...], columns: list[str]
) -> None:
    found = results(conditions, ("3-point",)).columns
    assert found[: len(columns)] == columns
    assert set(found[len(columns) :]) == set(conditions) & {"blur", "noise", "jpeg"} - set(columns)


def test_a_first_line_says_what_figures_are_worth() -> None:
    trained = describe_model("nano", "nano", True, "here")
    assert trained.startswith(
        "nano: a 5 M parameter model trained on procedural scenes; "
        "not comparable with the paper's figures"
    )
    assert "mean nothing" in describe_model("nano", "nano", False, "here")
    assert describe_model("sam_vit_b", "sd21", True, "there") == "sam_vit_b with sd21 (there)"


def test_json_comes_back(tmp_path: Path) -> None:
    found = results(("clear", "LQ-1"), ("box",))
    path = tmp_path / "report.json"
    path.write_text(json.dumps(found.as_dict()))
    assert read_results(path) == found


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"version": 2}, "version 2"),
        ({"format": "other"}, "other"),
        ({"rows": [[1]]}, "not an evaluation"),
        ({"rows": [["a", "b", "clear", "box", "s", 1, 1, 1]]}, "not an evaluation"),
        ({"seed": "x"}, "not an evaluation"),
        (None, "not an evaluation"),
    ],
)
def test_other_json_is_refused(tmp_path: Path, change: dict | None, hint: str) -> None:
    path = tmp_path / "report.json"
    document = results(("clear",), ("box",)).as_dict() | (change or {})
    path.write_text(json.dumps(document) if change is not None else "{")
    with pytest.raises(InputError, match=hint):
        read_results(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_results(tmp_path / "none.json")


def test_rows_are_plain() -> None:
    row = results(("clear",), ("box",)).rows[0]
    for value in dataclasses.asdict(row).values():
        assert type(value) in (str, int, float)


@pytest.mark.parametrize(
    ("conditions", "prompts", "panels"),
    [(DEFAULT, ALL_PROMPTS, 2), (("clear",), ("box",), 1), (("haze",), ("1-point", "2-point"), 2)],
)
def test_a_plot_has_ink_in_every_panel(
    tmp_path: Path, conditions: tuple[str, ...], prompts: tuple[str, ...], panels: int
) -> None:
    path = tmp_path / "plot.png"
    draw(results(conditions, prompts), path)
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert pixels.shape[1] >= 700 * panels
    coloured = (pixels.max(axis=2) - pixels.min(axis=2)) > 60
    for part in np.array_split(coloured, panels, axis=1):
        assert part.sum() > 100


def test_without_matplotlib_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"glesam-deploy\[calibration\]"):
        draw(results(("clear",), ("box",)), tmp_path / "plot.png")


def test_quality_is_the_variance_of_the_laplacian_of_scipy() -> None:
    image = make_scene(1, 40, 50).image
    gray = np.asarray(Image.fromarray(image).convert("L"), np.float64)
    expected = ndimage.laplace(gray, mode="mirror").var()
    assert sharpness(image) == pytest.approx(expected, rel=0.02)  # gray is rounded otherwise
    assert sharpness(np.full((5, 5, 3), 9, np.uint8)) == 0
    soft = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(2)))
    assert sharpness(soft) < 0.2 * sharpness(image)


def test_quality_is_drawn_with_and_without_the_enhancer(tmp_path: Path) -> None:
    found = results(("clear", "LQ-1", "LQ-3", "fog"), ("box", "3-point"))
    tile = Tiles()[0]
    clear = {
        row.quality for row in found.rows if row.image == tile.name and row.condition == "clear"
    }
    assert clear == {sharpness(tile.image)}
    draw_quality(found, tmp_path / "quality.png")
    pixels = np.asarray(Image.open(tmp_path / "quality.png").convert("L"))
    panels = np.array_split(pixels, 3, axis=1)
    assert all((panel < 128).mean() > 0.002 for panel in panels)
    old = replace(found, rows=tuple(replace(row, quality=None) for row in found.rows))
    with pytest.raises(InputError, match="hold no quality"):
        draw_quality(old, tmp_path / "old.png")
    assert not (tmp_path / "old.png").exists()
