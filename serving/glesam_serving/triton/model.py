"""Answer Triton's requests: an image or its id, and prompts, to masks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from glesam_runtime.errors import GlesamError, InputError
from glesam_runtime.expected_work import LASTING
from glesam_runtime.predictor import GleSamPredictor
from glesam_runtime.rle import encode_rle
from glesam_serving.triton.embeddings import Embeddings
from glesam_serving.triton.stage_calls import StageCalls, predictor_on
from glesam_serving.triton.tensors import flag_of, read_tensors, set_image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glesam_runtime.enhancing import Mode

_MODES: dict[str, Mode] = {"true": True, "false": False, "auto": "auto"}


class Loaded:
    """The bundle and the cache of one process of a model."""

    def __init__(self, arguments: dict[str, str]) -> None:
        """Load the bundle beside model.py.

        Args:
            arguments: what Triton gives to `initialize`.
        """
        config = json.loads(arguments["model_config"])
        parameters = {name: value["string_value"] for name, value in config["parameters"].items()}
        version = arguments["model_version"]
        folder = Path(arguments["model_repository"])
        if folder.name != arguments["model_name"] and (folder / arguments["model_name"]).is_dir():
            folder = folder / arguments["model_name"]
        enhance = _MODES[parameters["enhance"]]
        timestep = int(parameters["timestep"]) if "timestep" in parameters else None
        bundle = folder / version / "bundle"
        self.predictor: GleSamPredictor
        if parameters["stages"] == "triton":
            import triton_python_backend_utils as utils

            self.predictor = predictor_on(bundle, StageCalls(utils, version), enhance, timestep)
        else:
            device = parameters["device"]
            self.predictor = GleSamPredictor(
                bundle, device=device, enhance=enhance, timestep=timestep, work=LASTING
            )
        self.kept = Embeddings(int(parameters["cache_mib"]) << 20)


class TritonPythonModel:
    """The model `glesam`."""

    def initialize(self, arguments: dict[str, str]) -> None:
        """Load the bundle."""
        self._loaded = Loaded(arguments)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request; a wrong one gets an error of one line."""
        import triton_python_backend_utils as utils

        answers = []
        for request in requests:
            try:
                wanted = set(request.requested_output_names())
                outputs = self.answer(read_tensors(utils, request), wanted)
                tensors = [utils.Tensor(name, value) for name, value in outputs.items()]
                answers.append(utils.InferenceResponse(tensors))
            except GlesamError as error:
                message = " ".join(str(error).split())
                answers.append(
                    utils.InferenceResponse(output_tensors=[], error=utils.TritonError(message))
                )
        return answers

    def answer(self, tensors: dict[str, NDArray[Any]], wanted: set[str]) -> dict[str, Any]:
        """Return the outputs that a request asks for.

        Raises:
            InputError: the image or a prompt cannot be used.
        """
        predictor = self._loaded.predictor
        name = set_image(predictor, self._loaded.kept, tensors)
        height, width = predictor.geometry.original
        outputs: dict[str, Any] = {
            "image_id": np.array([name.encode()], np.object_),
            "size": np.array([height, width], np.int32),
        }
        prompts = {"point_coords", "point_labels", "boxes", "mask_input"} & set(tensors)
        decoded = {"masks", "rle", "iou_predictions", "low_res_masks"} & wanted
        if decoded and not prompts:
            raise InputError(
                f"{', '.join(sorted(decoded))}: no prompt; give point_coords with point_labels, or "
                "boxes"
            )
        if decoded:
            full, scores, low_res = predictor.predict(
                tensors.get("point_coords"),
                tensors.get("point_labels"),
                tensors.get("boxes"),
                tensors.get("mask_input"),
                flag_of(tensors, "multimask", True),
            )
            if full.ndim == 3:  # one prompt has no leading axis
                full, scores, low_res = full[None], scores[None], low_res[None]
            outputs["iou_predictions"] = scores
            outputs["low_res_masks"] = low_res
            if "masks" in wanted:
                outputs["masks"] = full.astype(np.uint8)
            if "rle" in wanted:
                counts = [[encode_rle(mask)["counts"].encode() for mask in own] for own in full]
                outputs["rle"] = np.array(counts, np.object_).reshape(full.shape[:2])
        return {name: value for name, value in outputs.items() if name in wanted}
