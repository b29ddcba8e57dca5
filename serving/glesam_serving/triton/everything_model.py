"""Answer Triton's requests of everything-mode: an image to all its masks, one response for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from glesam_runtime.errors import GlesamError, InputError
from glesam_runtime.everything.parameters import Parameters, numbers
from glesam_runtime.everything.search import find_masks
from glesam_runtime.rle import encode_runs, run_area
from glesam_serving.triton.model import Loaded
from glesam_serving.triton.tensors import pixels_of, read_tensors, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


class TritonPythonModel:
    """The model `glesam_everything`."""

    def initialize(self, arguments: dict[str, str]) -> None:
        """Load the bundle."""
        self._loaded = Loaded(arguments)

    def execute(self, requests: list[Any]) -> None:
        """Send the masks of each request, then the end of its responses."""
        import triton_python_backend_utils as utils

        for request in requests:
            sender = request.get_response_sender()
            try:
                for outputs in self.answers(read_tensors(utils, request)):
                    tensors = [utils.Tensor(name, value) for name, value in outputs.items()]
                    sender.send(utils.InferenceResponse(tensors))
            except GlesamError as error:
                message = " ".join(str(error).split())
                sender.send(
                    utils.InferenceResponse(output_tensors=[], error=utils.TritonError(message))
                )
            sender.send(flags=utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def answers(self, tensors: dict[str, NDArray[Any]]) -> Iterator[dict[str, Any]]:
        """Yield the outputs for each mask, the best first.

        Raises:
            InputError: the image or a parameter cannot be used.
        """
        pixels = pixels_of(tensors)
        if pixels is None:
            raise InputError("no image; give image or pixels")
        height, width = pixels.shape[:2]
        parameters = _parameters(text_of(tensors, "parameters"))
        for found in find_masks(self._loaded.predictor, pixels, parameters):
            x0, y0, x1, y1 = found.box
            counts = encode_runs(found.runs, height, width)["counts"]
            yield {
                "rle": np.array([counts.encode()], np.object_),
                "size": np.array([height, width], np.int32),
                "box": np.array([x0, y0, x1 + 1, y1 + 1], np.int32),
                "point": np.array(found.point, np.float32),
                "predicted_iou": np.array([found.predicted_iou], np.float32),
                "stability_score": np.array([found.stability], np.float32),
                "area": np.array([run_area(found.runs)], np.int64),
            }


def _parameters(text: str | None) -> Parameters:
    """Read the parameters of everything-mode, a JSON object of numbers.

    Raises:
        InputError: it is something else, or a number is out of range.
    """
    if text is None:
        return Parameters()
    try:
        given = msgspec.json.decode(text, type=dict[str, float | int])
    except msgspec.DecodeError as error:
        raise InputError(f"parameters: not a JSON object of numbers ({error})") from error
    known = {each.name for each in numbers()}
    unknown = sorted(given.keys() - known)
    if unknown:
        raise InputError(f"parameters: {unknown[0]} is not known; known are {sorted(known)}")
    return Parameters(**given)  # type: ignore[arg-type]
