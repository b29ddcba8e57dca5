"""The overlay has distinct colours and scaled lines, and draws nothing for empty masks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image

from glesam_runtime.draw import colour_of, draw_mask, draw_prompt, overlay
from glesam_runtime.prompt_requests import PromptRequest


def gray(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 100, np.uint8)


def test_the_tint_stays_inside_the_mask() -> None:
    mask = np.zeros((200, 300), np.bool_)
    mask[50:150, 100:200] = True
    drawn = np.asarray(overlay(gray(200, 300), [mask], [PromptRequest("x")]))
    blue, ground = np.array(colour_of(0)), np.array([100, 100, 100])
    np.testing.assert_allclose(drawn[100, 150], ground * 0.55 + blue * 0.45, atol=2)
    np.testing.assert_array_equal(drawn[20, 20], ground)
    assert drawn[100, 99:101].min() > 180  # the white contour
    assert drawn.dtype == np.uint8


@pytest.mark.parametrize("fill", [False, True])
def test_empty_and_full_masks_have_no_contour(fill: bool) -> None:
    canvas = Image.fromarray(gray(40, 60))
    draw_mask(canvas, np.full((40, 60), fill), colour_of(1))
    assert len(np.unique(np.asarray(canvas).reshape(-1, 3), axis=0)) == 1


def test_a_small_mask_is_drawn_as_on_a_canvas_of_its_own_size() -> None:
    """Check that drawing only around a mask does not cut off its contour."""
    small = np.zeros((60, 60), np.bool_)
    small[20:35, 25:31] = True
    mask = np.zeros((400, 300), np.bool_)
    mask[100:160, 200:260] = small
    canvases = [Image.fromarray(gray(400, 300)) for _ in range(2)]
    draw_mask(canvases[0], mask, colour_of(0))
    mask[399, 0] = True  # a far pixel, so that the whole canvas is drawn
    draw_mask(canvases[1], mask, colour_of(0))
    part, whole = (np.asarray(canvas) for canvas in canvases)
    np.testing.assert_array_equal(part[:380], whole[:380])
    assert (part[100:160, 200:260] != 100).any()


def test_points_and_boxes() -> None:
    canvas = Image.fromarray(gray(200, 300))
    prompt = PromptRequest("x", ((50, 60), (250, 160)), (1, 0), (20, 30, 120, 170))
    draw_prompt(canvas, prompt, colour_of(2))
    drawn = np.asarray(canvas).astype(int)
    assert drawn[60, 50, 1] > drawn[60, 50, 0]  # green
    assert drawn[160, 250, 0] > drawn[160, 250, 1]  # red
    assert tuple(drawn[100, 20]) == colour_of(2)


def test_drawing_beyond_the_edges_is_cut_off() -> None:
    prompt = PromptRequest("x", ((0, 0), (59, 39)), (1, 1), (-30, -20, 90, 55))
    drawn = np.asarray(overlay(gray(40, 60), [], [prompt]))
    assert drawn.shape == (40, 60, 3)
    assert (drawn[0, 0] != 100).any()


def test_lines_grow_with_the_image() -> None:
    widths = []
    for scale in (1, 4):
        canvas = Image.fromarray(gray(400 * scale, 800 * scale))
        box = tuple(value * scale for value in (200.0, 100.0, 600.0, 300.0))
        draw_prompt(canvas, PromptRequest("x", box=box), colour_of(0))  # type: ignore[arg-type]
        row = np.asarray(canvas)[200 * scale, : 400 * scale]
        widths.append(int((row != 100).any(axis=-1).sum()))
    assert widths[1] >= 3 * widths[0] > 0


def test_neighbouring_colours_differ() -> None:
    colours = [np.array(colour_of(index)) for index in range(40)]
    for one, next_one in itertools.pairwise(colours):
        assert np.abs(one - next_one).max() > 60
    assert all(0 <= c.min() <= c.max() <= 255 for c in colours)
