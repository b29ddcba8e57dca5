"""Check the sides of tiles. Apart from `tiles`, because the command line needs no NumPy for it."""

from __future__ import annotations

from glesam_runtime.errors import InputError

MIN_TILE = 64
"""The smallest side of a tile in pixels."""


def check_tiles(tile: int, overlap: int) -> None:
    """Refuse tiles that cannot cover a picture.

    Raises:
        InputError: the tile is too small, or the overlap is negative or more than half a tile.
    """
    if tile < MIN_TILE:
        raise InputError(f"tile {tile}: at least {MIN_TILE} pixels are needed")
    if not 0 <= overlap <= tile // 2:
        raise InputError(f"overlap {overlap}: must be 0 to {tile // 2}, half a tile")
