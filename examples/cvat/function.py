"""Segment in CVAT with a glesam-serve server, as an auto-annotation function of CVAT's own SDK.

`cvat-cli function run-agent` and `cvat-cli task auto-annotate` load this file. It offers two
functions: `interactor` turns clicks and boxes into masks, `detector` finds everything in a picture.
`README.md` beside this file's folder has the commands.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import cvat_sdk.auto_annotation as cvataa
import numpy as np
from cvat_sdk.masks import encode_mask
from cvat_sdk.models import AttributeValRequest

from glesam_runtime.errors import GlesamError
from glesam_runtime.rle import decode_rle
from glesam_serving import Client

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

_LABEL_ID = 0


def create(
    kind: str = "interactor",
    server: str = "http://127.0.0.1:8000",
    label: str = "object",
    **parameters: float,
) -> Interactor | Detector:
    """Return the function that `cvat-cli` asks for with its `-p` options.

    Args:
        kind: "interactor" or "detector".
        server: the address of glesam-serve. The environment variable GLESAM_API_KEY holds its key.
        label: the label of the detector's masks; the task needs a label of this name.
        parameters: of everything-mode, such as `points_per_side`, for the detector.

    Raises:
        BadFunctionError: the kind is not known, or an interactor is given parameters.
    """
    if kind == "detector":
        return Detector(server, label, parameters)
    if kind != "interactor":
        raise cvataa.BadFunctionError(f"kind {kind!r}: must be interactor or detector")
    if parameters:
        names = ", ".join(parameters)
        raise cvataa.BadFunctionError(f"{names}: only a detector takes parameters of a search")
    return Interactor(server)


def _connect(server: str, image: Image) -> Client:
    """Send a picture to the server, and return the client that holds it.

    Raises:
        BadFunctionError: the server refuses the picture, or does not answer.
    """
    client = Client(server, api_key=os.environ.get("GLESAM_API_KEY"))
    try:
        client.set_image(np.array(image.convert("RGB")))
    except GlesamError as error:
        raise cvataa.BadFunctionError(str(error)) from error
    return client


class Interactor:
    """Turns points and a box into one mask. CVAT keeps the encoded picture between clicks."""

    def __init__(self, server: str) -> None:
        self._server = server

    @property
    def spec(self) -> cvataa.InteractionFunctionSpec:
        """Return what prompts it takes: a point or a box at least, and points to exclude."""
        return cvataa.InteractionFunctionSpec(
            min_pos_points=0, min_neg_points=0, min_bounding_boxes=0
        )

    def preprocess_image(self, _: cvataa.InteractionFunctionContext, image: Image) -> Client:
        """Send the picture to the server, which encodes it once."""
        return _connect(self._server, image)

    def detect(
        self,
        _: cvataa.InteractionFunctionContext,
        client: Client,
        prompts: cvataa.InteractionPrompts,
    ) -> list[cvataa.InteractionResultShape]:
        """Return the mask of the prompts, with the model's estimate of its IoU as confidence."""
        points = [*prompts.pos_points, *prompts.neg_points]
        labels = [1] * len(prompts.pos_points) + [0] * len(prompts.neg_points)
        box = None if prompts.bounding_box is None else np.ravel(prompts.bounding_box)
        try:
            masks, scores, _low_res = client.predict(
                points or None, labels or None, box, multimask_output=False
            )
        except GlesamError as error:
            raise cvataa.BadFunctionError(str(error)) from error
        if not masks.any():
            return []
        confidence = AttributeValRequest(
            spec_id=int(cvataa.InteractionResultAttributes.CONFIDENCE),
            value=f"{float(np.clip(scores[0], 0, 1)):.6f}",
        )
        points_of_mask = encode_mask(masks[0].astype(bool))
        return [
            cvataa.InteractionResultShape(
                type="mask", points=points_of_mask, attributes=[confidence]
            )
        ]


class Detector:
    """Finds everything in a picture: one mask for each object, all of one label."""

    def __init__(self, server: str, label: str, parameters: dict[str, float]) -> None:
        self._server, self._label, self._parameters = server, label, parameters

    @property
    def spec(self) -> cvataa.DetectionFunctionSpec:
        """Return the label that the masks have."""
        return cvataa.DetectionFunctionSpec(
            labels=[cvataa.label_spec(self._label, _LABEL_ID, type="mask")]
        )

    def detect(
        self, context: cvataa.DetectionFunctionContext, image: Image
    ) -> Sequence[cvataa.DetectionAnnotation]:
        """Return the masks whose predicted IoU is at least the threshold that CVAT gives."""
        if context.conv_mask_to_poly:
            raise cvataa.BadFunctionError(
                "the masks have holes and parts, which a polygon has not; turn off the conversion "
                "of masks to polygons"
            )
        least = context.conf_threshold or 0
        with _connect(self._server, image) as client:
            try:
                lines = list(client.everything(**self._parameters))
            except GlesamError as error:
                raise cvataa.BadFunctionError(str(error)) from error
        return [
            cvataa.mask(_LABEL_ID, encode_mask(decode_rle(mask["rle"])))
            for mask in _masks_of(lines)
            if mask["predicted_iou"] >= least
        ]


def _masks_of(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the masks among the lines of a search, which also tell its progress."""
    return [line["mask"] for line in lines if "mask" in line]
