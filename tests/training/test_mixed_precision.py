from __future__ import annotations

from types import SimpleNamespace

import pytest

from glesam_training import mixed_precision


@pytest.mark.parametrize(("multiplies", "wanted"), [(False, "no"), (True, "bf16")])
def test_auto_is_bfloat16_where_the_cpu_multiplies_it(
    multiplies: bool, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = SimpleNamespace(device=SimpleNamespace(type="cpu"))
    monkeypatch.setattr(mixed_precision, "PartialState", lambda: state)
    monkeypatch.setattr(mixed_precision, "multiplies_bfloat16", lambda: multiplies)
    assert mixed_precision.chosen("auto") == wanted


@pytest.mark.parametrize("name", ["no", "fp16", "bf16"])
def test_what_was_asked_for_stays(name: str) -> None:
    assert mixed_precision.chosen(name) == name
