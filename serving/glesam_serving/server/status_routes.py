"""Answer the requests about the server: bundle, sample picture, state and metrics."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from glesam_runtime.everything.parameters import Parameters, thresholds
from glesam_serving import wire
from glesam_serving.problems import ProblemError
from glesam_serving.server import degradation
from glesam_serving.server.metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from glesam_serving.server.metrics import Metrics
    from glesam_serving.server.model import Model
    from glesam_serving.settings import ServerOptions

_JSON = "application/json"


class StatusRoutes:
    """The endpoints for the server itself. Each method answers one of them."""

    def __init__(self, model: Model, options: ServerOptions, metrics: Metrics) -> None:
        self._model, self._options, self._metrics = model, options, metrics
        self.draining = False
        """Whether the server shuts down, and takes no further requests."""

    async def bundle(self, request: Request) -> Response:
        """Describe the bundle, the engine and this server."""
        manifest, options = self._model.bundle.manifest, self._options
        predictor = self._model.predictor
        try:
            released = version("glesam-deploy")
        except PackageNotFoundError:
            released = version("glesam-runtime")
        answer = wire.BundleAnswer(
            sha256=self._model.bundle.sha256,
            model=msgspec.to_builtins(manifest.model),
            preprocessing=msgspec.to_builtins(manifest.preprocessing),
            postprocessing=msgspec.to_builtins(manifest.postprocessing),
            coordinates=msgspec.to_builtins(manifest.coordinates),
            everything=msgspec.to_builtins(thresholds(manifest, Parameters())),
            precision={name: stage.precision for name, stage in manifest.stages.items()},
            engine={**predictor.engine.describe(), "reason": predictor.engine_reason},
            features={
                "enhance": self._model.enhancing.may_enhance,
                "degrade": degradation.is_available(),
            },
            enhance=self._model.enhancing.mode,
            limits={
                "body_bytes": options.max_body,
                "pixels": options.max_pixels,
                "prompts": options.max_prompts,
                "points": options.max_points,
            },
            version=released,
        )
        return Response(wire.encode(answer), media_type=_JSON)

    async def sample(self, request: Request) -> Response:
        """Return the built-in sample picture."""
        picture = files("glesam_runtime") / "sample" / "sample.jpg"
        return Response(picture.read_bytes(), media_type="image/jpeg")

    async def live(self, request: Request) -> Response:
        """Say that the process runs."""
        return Response(b'{"status":"live"}', media_type=_JSON)

    async def ready(self, request: Request) -> Response:
        """Say whether requests are taken."""
        if self.draining:
            raise ProblemError(503, "the server shuts down; use another one")
        return Response(b'{"status":"ready"}', media_type=_JSON)

    async def metrics(self, request: Request) -> Response:
        """Return the metrics for Prometheus."""
        return Response(self._metrics.text(), headers={"Content-Type": CONTENT_TYPE})
