"""Provide the attributes of SamPredictor that programs read: `transform` and `model`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from glesam_runtime.image import geometry_of, preprocess
from glesam_runtime.torch_tensors import Tensor, torch_module

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from glesam_runtime.manifest import Preprocessing


@dataclass(frozen=True)
class Transform:
    """Resize images and coordinates to the encoder's input, as ResizeLongestSide does.

    A SAM 2 bundle stretches images to a square, so its factors for x and y differ.
    """

    rules: Preprocessing

    @property
    def target_length(self) -> int:
        """Return S, the side of the encoder's square input in pixels."""
        return self.rules.image_size

    def get_preprocess_shape(self, oldh: int, oldw: int, long_side_length: int) -> tuple[int, int]:
        """Return (height, width) of an image after it is resized for a square of this side."""
        return geometry_of(oldh, oldw, long_side_length, self.rules.resize).resized

    def apply_image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8] | NDArray[np.float32]:
        """Resize an image uint8 [H, W, 3]; the result is float32 with a SAM 2 bundle.

        Raises:
            InputError: the array is not such an image.
        """
        plain = msgspec.structs.replace(self.rules, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        prepared = preprocess(image, plain)
        height, width = prepared.geometry.resized
        pixels = prepared.tensor[0, :, :height, :width].transpose(1, 2, 0)
        if self.rules.kernel == "pillow_bilinear":  # its values are whole
            return pixels.astype(np.uint8, order="C")
        return np.ascontiguousarray(pixels)

    def apply_coords(
        self, coords: ArrayLike, original_size: tuple[int, ...]
    ) -> NDArray[np.float64]:
        """Scale (x, y) [..., 2] from pixels of an image of size (H, W) to the encoder's input."""
        return np.asarray(coords, np.float64) * self._factors(original_size)

    def apply_boxes(self, boxes: ArrayLike, original_size: tuple[int, ...]) -> NDArray[np.float64]:
        """Scale boxes [..., 4], x0, y0, x1, y1, as `apply_coords` does; the result is [B, 4]."""
        corners = np.asarray(boxes, np.float64).reshape(-1, 2, 2)
        return self.apply_coords(corners, original_size).reshape(-1, 4)

    def apply_image_torch(self, image: Tensor) -> Tensor:
        """Resize torch images [B, C, H, W] of float values.

        segment_anything takes B and C for the height and the width; this uses H and W.
        """
        torch = torch_module(image, "image")
        height, width = image.shape[-2:]
        size = self.get_preprocess_shape(height, width, self.target_length)
        interpolate = torch.nn.functional.interpolate
        return interpolate(image, size, mode="bilinear", align_corners=False, antialias=True)

    def apply_coords_torch(self, coords: Tensor, original_size: tuple[int, ...]) -> Tensor:
        """Scale a torch tensor as `apply_coords` does; the result is float32."""
        return (coords.double() * coords.double().new_tensor(self._factors(original_size))).float()

    def apply_boxes_torch(self, boxes: Tensor, original_size: tuple[int, ...]) -> Tensor:
        """Scale a torch tensor as `apply_boxes` does; the result is float32."""
        return self.apply_coords_torch(boxes.reshape(-1, 2, 2), original_size).reshape(-1, 4)

    def _factors(self, original_size: tuple[int, ...]) -> NDArray[np.float64]:
        """Return the factors of x and y."""
        height, width = (int(side) for side in original_size)
        resized = self.get_preprocess_shape(height, width, self.target_length)
        return np.asarray([resized[1] / width, resized[0] / height])


@dataclass(frozen=True)
class ImageEncoderAttributes:
    """What programs read from `predictor.model.image_encoder`."""

    img_size: int
    """S, the side of the encoder's square input in pixels."""


@dataclass(frozen=True)
class ModelAttributes:
    """What programs read from `predictor.model`. It has no weights."""

    image_size: int
    """S, the side of the encoder's square input in pixels."""
    mask_threshold: float
    """Pixels whose logit exceeds this value belong to the mask."""
    device: str
    """Where the engine runs, such as "cpu" or "cuda:0"; torch accepts it as a device."""
    image_format: str = "RGB"
    """The order of the channels that the encoder was trained with."""

    @property
    def image_encoder(self) -> ImageEncoderAttributes:
        """Return the attributes of the encoder."""
        return ImageEncoderAttributes(self.image_size)

    def eval(self) -> ModelAttributes:
        """Return this object: a bundle has no mode for training."""
        return self

    def to(self, *_: Any, **__: Any) -> ModelAttributes:
        """Return this object: `GleSamPredictor(device=...)` chooses the device."""
        return self
