"""Serve GleSAM bundles over HTTP, and use such a server from Python.

from glesam_serving import Client

client = Client("http://127.0.0.1:8000")
client.set_image("photo.jpg")
masks, scores, low_res_masks = client.predict([[120, 80]], [1])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glesam_serving.client import Client

__all__ = ["Client"]


def __getattr__(name: str) -> Any:
    """Import the client when it is first used, so that `glesam-serve --help` needs no NumPy."""
    if name == "Client":
        from glesam_serving.client import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
