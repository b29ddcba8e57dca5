"""Keep the embeddings of images by their ids, the latest used, within a number of bytes."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glesam_runtime.embedding import ImageEmbedding


class Embeddings:
    """A cache of embeddings. One thread uses it, as Triton calls each process of a model."""

    def __init__(self, limit: int) -> None:
        """Create an empty cache of at most `limit` bytes."""
        self._limit = limit
        self._bytes = 0
        self._kept: OrderedDict[str, ImageEmbedding] = OrderedDict()

    def get(self, image_id: str) -> ImageEmbedding | None:
        """Return the embedding of an image, and count it as used."""
        found = self._kept.get(image_id)
        if found is not None:
            self._kept.move_to_end(image_id)
        return found

    def put(self, image_id: str, embedding: ImageEmbedding) -> None:
        """Keep an embedding; those that were not used for longest make room.

        An embedding that is larger than the whole cache is not kept.
        """
        self._bytes -= _size(self._kept.pop(image_id, None))
        self._kept[image_id] = embedding
        self._bytes += _size(embedding)
        while self._bytes > self._limit:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= _size(dropped)

    @property
    def size(self) -> int:
        """Return the bytes that are kept."""
        return self._bytes


def _size(embedding: ImageEmbedding | None) -> int:
    return 0 if embedding is None else sum(one.nbytes for one in embedding.features.values())
