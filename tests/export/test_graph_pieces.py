"""Cheaper pieces of the graphs equal the originals that they replace, in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from glesam_export import graphs
from glesam_export.enhancer.graph import Upsampling, halves
from glesam_export.graphs import Attend, fold_biases, join_windows, split_windows

from .conftest import relative

EXACT = 1e-12


pytestmark = pytest.mark.usefixtures("no_gradients")


@given(
    channels=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    batch=st.integers(1, 3),
)
def test_upsampling(channels: tuple[int, int], size: tuple[int, int], batch: int) -> None:
    with torch.no_grad():
        conv = nn.Conv2d(*channels, 3, padding=1).double()
        x = torch.randn(batch, channels[0], *size).double()
        expected = conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        assert relative(Upsampling(conv)(x), expected) < EXACT


def test_halves() -> None:
    layer = nn.Linear(5, 8).double()
    x = torch.randn(3, 5).double()
    found = torch.cat([half(x) for half in halves(layer)], -1)
    torch.testing.assert_close(found, layer(x), rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("at_once", [1, 12 * 12 * 2, 10**9], ids=["one", "two heads", "all"])
def test_attention_in_groups_with_positions(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check softmax(q k^T + rows + columns) v for different numbers of heads at a time."""
    monkeypatch.setattr(graphs, "SCORES_AT_ONCE", at_once)
    q, k, v = torch.randn(3, 2, 5, 12, 8).double()  # N = 2, 5 heads, 12 tokens in 3 rows of 4
    rows, columns = torch.randn(2, 5, 12, 3).double(), torch.randn(2, 5, 12, 4).double()
    bias = rows.repeat_interleave(4, -1) + columns.repeat(1, 1, 1, 3)
    expected = functional.scaled_dot_product_attention(q, k, v, bias, scale=1.0)
    found = Attend(in_groups=True)(q, k, v, rows, columns)
    assert relative(found, expected) < EXACT
    plain = functional.scaled_dot_product_attention(q, k, v, scale=1.0)
    assert relative(Attend()(q, k, v), plain) < EXACT


def attend(qkv: nn.Linear, proj: nn.Linear, x: Tensor) -> Tensor:
    q, k, v = qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
    attended = functional.scaled_dot_product_attention(q, k, v)
    result: Tensor = proj(attended.transpose(1, 2).flatten(2))
    return result


def test_biases_of_keys_and_values_fold_away() -> None:
    qkv, proj = nn.Linear(8, 24).double(), nn.Linear(8, 8).double()
    x = torch.randn(2, 6, 8).double()
    expected = attend(qkv, proj, x)
    fold_biases(qkv, proj)
    assert qkv.bias[8:].abs().max() == 0
    assert qkv.bias[:8].abs().min() > 0
    assert relative(attend(qkv, proj, x), expected) < EXACT


@given(side=st.integers(1, 9), window=st.integers(1, 9), batch=st.integers(1, 2))
def test_windows_are_the_images_tokens_and_zeros(side: int, window: int, batch: int) -> None:
    window = min(side, window)
    heads, d = 2, 3
    x = torch.arange(1, batch * side * side * 3 * heads * d + 1).double()
    x = x.reshape(batch, side * side, 3 * heads * d)
    across = -(-side // window)
    parts = split_windows(x, side, window, heads)
    for number, part in enumerate(parts):
        assert part.shape == (batch * across**2, heads, window**2, d)
        own = x[..., number * heads * d : (number + 1) * heads * d]
        assert part.sum() == own.sum()
        assert int((part != 0).sum()) == own.numel()
        assert torch.equal(join_windows(part, side, window), own)
    # The first window holds the first rows' first tokens.
    first = parts[0].unflatten(0, (batch, -1))[0, 0, 0].unflatten(0, (window, window))
    corner = x[0, :, :d].unflatten(0, (side, side))[:window, :window]
    assert torch.equal(first[: corner.shape[0], : corner.shape[1]], corner)
