"""Check that clicks, drags, keys and touches give the masks of GleSamPredictor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import expect

from .conftest import Oracle, Site

COIN, OTHER, BACKGROUND = (245, 300), (445, 135), (290, 355)


def test_click_draws_the_predictors_mask(site: Site, oracle: Oracle) -> None:
    site.click(*COIN)
    assert site.points() == [[*COIN, 1]]
    drawn, expected = site.mask(), oracle.mask([[*COIN, 1]])
    assert (drawn & expected).sum() / (drawn | expected).sum() == 1.0
    assert site.figure("Area") == [f"{expected.sum():,}"]


@pytest.mark.parametrize("way", ["right button", "Alt", "mode"])
def test_background_point(site: Site, oracle: Oracle, way: str) -> None:
    site.click(*COIN)
    if way == "right button":
        site.click(*BACKGROUND, button="right")
    elif way == "Alt":
        site.page.keyboard.down("Alt")
        site.click(*BACKGROUND)
        site.page.keyboard.up("Alt")
    else:
        site.page.get_by_text("Background", exact=True).click()
        site.click(*BACKGROUND)
    assert site.points() == [[*COIN, 1], [*BACKGROUND, 0]]
    np.testing.assert_array_equal(site.mask(), oracle.mask([[*COIN, 1], [*BACKGROUND, 0]]))


def test_drag_is_a_box(site: Site, oracle: Oracle) -> None:
    site.drag((441, 323), (350, 213))
    assert site.points() == []
    np.testing.assert_array_equal(site.mask(), oracle.mask(box=[350, 213, 441, 323]))
    site.click(*BACKGROUND, button="right")
    expected = oracle.mask([[*BACKGROUND, 0]], [350, 213, 441, 323])
    np.testing.assert_array_equal(site.mask(), expected)


def test_undo_redo_and_reset(site: Site, oracle: Oracle) -> None:
    site.click(*COIN)
    site.click(*BACKGROUND, button="right")
    one, two = oracle.mask([[*COIN, 1]]), oracle.mask([[*COIN, 1], [*BACKGROUND, 0]])
    assert (one != two).any()
    site.page.click("#undo")
    np.testing.assert_array_equal(site.mask(), one)
    site.page.click("#redo")
    np.testing.assert_array_equal(site.mask(), two)
    site.page.click("#reset")
    assert not site.mask().any()
    expect(site.find("#reset")).to_be_disabled()
    site.page.click("#undo")
    np.testing.assert_array_equal(site.mask(), two)


def test_several_objects_with_names(site: Site, oracle: Oracle) -> None:
    site.click(*COIN)
    site.page.fill("#name", "coin")
    site.page.click("#add")
    site.click(*OTHER)
    both = oracle.mask([[*COIN, 1]]) | oracle.mask([[*OTHER, 1]])
    np.testing.assert_array_equal(site.mask(), both)
    entries = site.find("#list [role=option]")
    expect(entries).to_have_count(2)
    expect(entries.nth(0)).to_contain_text("coin")
    fills = entries.locator("circle").evaluate_all(
        "all => all.map((one) => one.getAttribute('fill'))"
    )
    assert len(set(fills)) == 2
    entries.nth(0).click()
    assert site.points() == [[*COIN, 1]]
    site.page.click("#remove")
    np.testing.assert_array_equal(site.mask(), oracle.mask([[*OTHER, 1]]))


def test_three_candidates(site: Site, oracle: Oracle) -> None:
    with site.page.expect_response("**/segment"):
        site.page.mouse.click(*site.place(*COIN))
    site.page.check("#multimask")
    candidates = site.find("#candidates button")
    expect(candidates).to_have_count(3)
    masks, scores, _ = oracle.enhanced.predict([COIN], [1], multimask_output=True)
    assert candidates.all_inner_texts() == [f"{at + 1}: {one:.2f}" for at, one in enumerate(scores)]
    np.testing.assert_array_equal(site.mask(), masks[scores.argmax()])
    for chosen in range(3):
        candidates.nth(chosen).click()
        expect(candidates.nth(chosen)).to_have_attribute("aria-pressed", "true")
        np.testing.assert_array_equal(site.mask(), masks[chosen])


def test_keyboard_alone(open_site: Callable[..., Site], server: str, oracle: Oracle) -> None:
    site = open_site(server)
    site.page.goto(server)
    press = site.page.keyboard.press
    focused = "document.activeElement.id"

    def tab_to(wanted: str) -> None:
        for _ in range(30):
            press("Tab")
            if site.page.evaluate(focused) == wanted:
                return
        raise AssertionError(f"Tab does not reach {wanted}")

    def answered(key: str) -> None:
        with site.page.expect_response("**/segment"):
            press(key)
        site.status("pixels")

    tab_to("sample")
    press("Enter")
    site.status("Ready")
    tab_to("stage")
    assert site.find("#stage").evaluate("(stage) => stage.matches(':focus-visible')")
    for _ in range(10):  # from the centre (256, 192) to (246, 302)
        press("ArrowLeft")
    for _ in range(11):
        press("Shift+ArrowDown")
    site.status("Cursor at 246, 302")
    answered("Enter")
    np.testing.assert_array_equal(site.mask(), oracle.mask([[246, 302, 1]]))
    for key in ["Shift+ArrowRight"] * 4 + ["Shift+ArrowDown"] * 5:
        press(key)
    answered("Backspace")
    assert site.points() == [[246, 302, 1], [286, 352, 0]]
    press("Control+z")
    assert site.points() == [[246, 302, 1]]
    press("Control+y")
    press("Control+z")
    press("Control+Shift+z")
    assert site.points() == [[246, 302, 1], [286, 352, 0]]
    press("n")
    for key in ["Shift+ArrowRight"] * 6 + ["Shift+ArrowUp"] * 14:
        press(key)
    press("b")
    for key in ["Shift+ArrowRight"] * 9 + ["Shift+ArrowDown"] * 11:
        press(key)
    answered("b")
    box = oracle.mask(box=[346, 212, 436, 322])
    first = oracle.mask([[246, 302, 1], [286, 352, 0]])
    np.testing.assert_array_equal(site.mask(), first | box)
    tab_to("multimask")
    press("Space")
    masks, _, _ = oracle.enhanced.predict(None, None, [346, 212, 436, 322])
    expect(site.find("#candidates button")).to_have_count(3)
    for chosen in "123":
        press(chosen)
        assert site.figure("Area") == [f"{masks[int(chosen) - 1].sum():,}"]
    press("Space")
    press("Delete")
    expect(site.find("#list [role=option]")).to_have_count(1)
    np.testing.assert_array_equal(site.mask(), first)
    press("c")
    expect(site.find("#compare")).to_be_checked()
    expect(site.find("#divider i")).to_be_visible()


def test_touch_at_360_pixels(open_site: Callable[..., Site], server: str, oracle: Oracle) -> None:
    site = open_site(server, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    widths = "[document.documentElement.scrollWidth, window.innerWidth]"
    site.page.goto(server)
    assert site.page.evaluate(widths) == [360, 360]
    site.page.tap("#sample")
    site.status("Ready")
    with site.page.expect_response("**/segment"):
        site.page.touchscreen.tap(*site.place(*COIN))
    site.status("pixels")
    (point,) = site.points()
    assert abs(point[0] - COIN[0]) <= 2
    assert abs(point[1] - COIN[1]) <= 2
    np.testing.assert_array_equal(site.mask(), oracle.mask([point]))
    site.page.get_by_text("Background", exact=True).tap()
    with site.page.expect_response("**/segment"):
        site.page.touchscreen.tap(*site.place(*BACKGROUND))
    assert [label for _, _, label in site.points()] == [1, 0]
    site.page.check("#multimask")
    site.page.check("#compare")
    expect(site.find("#candidates button")).to_have_count(3)
    assert site.page.evaluate(widths) == [360, 360]


def test_touch_draws_a_box(open_site: Callable[..., Site], server: str, oracle: Oracle) -> None:
    site = open_site(server, has_touch=True)
    site.open_sample()
    site.page.get_by_text("Box", exact=True).tap()
    touch = site.page.context.new_cdp_session(site.page)

    def send(kind: str, *place: float) -> None:
        points: list[dict[str, Any]] = [{"x": place[0], "y": place[1]}] if place else []
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    with site.page.expect_response("**/segment"):
        send("touchStart", *site.place(350, 213))
        send("touchMove", *site.place(400, 260))
        send("touchMove", *site.place(441, 323))
        send("touchEnd")
    site.status("pixels")
    np.testing.assert_array_equal(site.mask(), oracle.mask(box=[350, 213, 441, 323]))
