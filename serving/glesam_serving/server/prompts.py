"""Turn the prompts of a request into batches for the decoder."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from glesam_runtime import results
from glesam_runtime.errors import InputError
from glesam_runtime.prompt_requests import (
    PromptRequest,
    check_request,
    from_prompt,
)
from glesam_runtime.prompts import PromptBatch, check_prompts, group_alike
from glesam_serving.problems import ProblemError
from glesam_serving.wire import Prompt, SegmentRequest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glesam_serving.server.images import EncodedImage
    from glesam_serving.settings import ServerOptions


@dataclass(frozen=True)
class Group:
    """Prompts of one request that the decoder can take in one call."""

    members: list[int]
    """Their positions in the request."""
    batch: PromptBatch


def read_request(raw: bytes, options: ServerOptions) -> SegmentRequest:
    """Read the JSON of a segment request, and check what needs no image.

    Raises:
        ProblemError: it is not such JSON, or has too many prompts or points.
    """
    try:
        request = msgspec.json.decode(raw, type=SegmentRequest)
    except msgspec.ValidationError as error:
        raise ProblemError(422, f"the request: {error}; /docs shows its form") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProblemError(400, f"the request is not JSON ({error}); /docs shows its form") from (
            error
        )
    if not request.prompts:
        raise ProblemError(422, "prompts: the list is empty; give at least one prompt")
    if len(request.prompts) > options.max_prompts:
        raise ProblemError(
            413,
            f"prompts: {len(request.prompts)}, more than this server's limit of "
            f"{options.max_prompts}; send several requests",
        )
    for index, prompt in enumerate(request.prompts):
        if len(prompt.points) > options.max_points:
            raise ProblemError(
                413,
                f"prompt {index}: {len(prompt.points)} points, more than this server's limit of "
                f"{options.max_points}; send fewer",
            )
    return request


def groups_of(request: SegmentRequest, image: EncodedImage) -> list[Group]:
    """Check the prompts against an image, and join those of the same kind.

    Raises:
        InputError: a prompt cannot be used.
        ProblemError: a mask to refine is not kept.
    """
    batches = [
        _batch_of(prompt, f"prompt {index}", image) for index, prompt in enumerate(request.prompts)
    ]
    return [Group(members, batch) for members, batch in group_alike(batches)]


def _batch_of(prompt: Prompt, where: str, image: EncodedImage) -> PromptBatch:
    """Return a prompt as a checked batch of one."""
    mask = _mask_of(prompt, where, image)
    if mask is not None and not prompt.points and prompt.box is None and not prompt.labels:
        return check_prompts(image.geometry, masks=mask)
    plain = results.Prompt(prompt.points, prompt.labels, prompt.box)
    request: PromptRequest = from_prompt(plain, where)
    batch = check_request(request, image.geometry)
    return batch if mask is None else replace(batch, masks=mask)


def _mask_of(prompt: Prompt, where: str, image: EncodedImage) -> NDArray[np.float32] | None:
    """Return the logits [1, 1, S/4, S/4] that a prompt refines, None without any."""
    side = image.geometry.image_size // 4
    if prompt.mask_from is not None and prompt.mask_input is not None:
        raise InputError(f"{where}: has mask_from and mask_input; leave out one")
    if prompt.mask_from is not None:
        return image.logits_of(prompt.mask_from, where).reshape(1, 1, side, side)
    if prompt.mask_input is None:
        return None
    try:
        raw = base64.b64decode(prompt.mask_input, validate=True)
    except binascii.Error as error:
        raise InputError(f"{where}: mask_input is not base64 ({error})") from error
    if len(raw) != 4 * side * side:
        raise InputError(
            f"{where}: mask_input has {len(raw)} bytes, but little-endian float32 "
            f"[{side}, {side}] has {4 * side * side}"
        )
    logits = np.frombuffer(raw, "<f4").reshape(1, 1, side, side).astype(np.float32)
    return check_prompts(image.geometry, masks=logits).masks
