"""Answer the requests about images."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, TypeVar

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from glesam_runtime.errors import InputError
from glesam_runtime.masks import for_mask_input
from glesam_runtime.timestep_levels import check_timestep
from glesam_serving import wire
from glesam_serving.problems import ProblemError, gone
from glesam_serving.server import degradation
from glesam_serving.server.answers import Logits, describe_masks, mask_png
from glesam_serving.server.body import Bodies, field_of, parts_of
from glesam_serving.server.images import EncodedImage, image_id
from glesam_serving.server.model import png_of, read_pixels
from glesam_serving.server.prompts import groups_of, read_request
from glesam_serving.server.search import count_prompts, lines, read_parameters
from glesam_serving.server.waiting import wait_for

if TYPE_CHECKING:
    from glesam_runtime.enhancing import Mode
    from glesam_serving.server.metrics import Metrics
    from glesam_serving.server.scheduler import Decoded, Scheduler
    from glesam_serving.settings import ServerOptions

T = TypeVar("T")
_JSON = "application/json"
_MODES: dict[str, Mode] = {"true": True, "false": False, "auto": "auto"}
"""The values of the query parameter `enhance`."""
_LARGE = 1 << 18
"""Bytes from which work on a body is done in a thread."""
_SHORT = 1 << 20
"""Pixels of all masks of an answer up to which the decoder's thread describes them (3 ms)."""


class Routes:
    """The endpoints for images. Each method answers one of them."""

    def __init__(self, scheduler: Scheduler, options: ServerOptions, metrics: Metrics) -> None:
        self._scheduler, self._options, self._metrics = scheduler, options, metrics
        self._model = scheduler.model
        self._rules = self._model.bundle.manifest.postprocessing
        self._bodies = Bodies(options.max_body, options.receive_timeout)

    async def create_image(self, request: Request) -> Response:
        """Encode an image, or answer from the cache."""
        enhance = self._enhance(request)
        timestep = self._timestep(request, enhance)
        async with self._bodies.read(request) as body:
            parts = await self._parts(request, body)
            content = body if parts is None else field_of(parts, "image")
            image, cached = await self._encoded(request, content, enhance, timestep)
        answer = self._describe(image, cached)
        headers = {"Location": f"/v1/images/{image.id}"}
        return Response(wire.encode(answer), 200 if cached else 201, headers, _JSON)

    async def get_image(self, request: Request) -> Response:
        """Describe an image in the cache."""
        image = self._scheduler.find(request.path_params["image_id"])
        return Response(wire.encode(self._describe(image, True)), media_type=_JSON)

    async def delete_image(self, request: Request) -> Response:
        """Drop an image from the cache."""
        name = request.path_params["image_id"]
        if not self._scheduler.cache.remove(name):
            raise gone(name)
        self._metrics.cache(self._scheduler.cache)
        return Response(status_code=204)

    async def segment_image(self, request: Request) -> Response:
        """Segment an image in the cache."""
        image = self._scheduler.find(request.path_params["image_id"])
        async with self._bodies.read(request) as body:
            prompts = read_request(body, self._options)
            async with self._scheduler.place():
                return await wait_for(
                    request, self._segment(request, image, prompts), self._options.timeout
                )

    async def segment(self, request: Request) -> Response:
        """Encode an image and segment it."""
        enhance = self._enhance(request)
        timestep = self._timestep(request, enhance)
        async with self._bodies.read(request) as body:
            parts = await self._parts(request, body)
            if parts is None:
                raise ProblemError(
                    415,
                    "the body must be multipart/form-data with the fields image and request; for "
                    "the two in turn use POST /v1/images",
                )
            prompts = read_request(field_of(parts, "request"), self._options)
            content = field_of(parts, "image")
            name = await self._name(content, enhance, timestep)

            async def work() -> Response:
                image, _ = await self._scheduler.encode(name, content, enhance, timestep)
                return await self._segment(request, image, prompts)

            async with self._scheduler.place():
                return await wait_for(request, work(), self._options.timeout)

    async def everything(self, request: Request) -> Response:
        """Find all masks of an image; the answer comes line by line."""
        image = self._scheduler.find(request.path_params["image_id"])
        async with self._bodies.read(request) as body:
            parameters = read_parameters(body, self._model.prompt_batch)
        total = count_prompts(parameters, image)

        async def placed() -> AsyncGenerator[bytes, None]:
            async with self._scheduler.place():
                found = lines(self._scheduler, image, parameters, total)
                async with aclosing(found):
                    async for line in found:
                        yield line

        stream = placed()
        first = await anext(stream)  # a full queue is answered before the status is sent

        async def all_lines() -> AsyncGenerator[bytes, None]:
            async with aclosing(stream):
                yield first
                async for line in stream:
                    yield line

        return StreamingResponse(all_lines(), media_type="application/x-ndjson")

    async def degrade(self, request: Request) -> Response:
        """Return a degraded version of an image as a PNG."""
        image = self._scheduler.find(request.path_params["image_id"])
        async with self._bodies.read(request) as body:
            try:
                wanted = msgspec.json.decode(body, type=wire.DegradeRequest)
            except msgspec.ValidationError as error:
                raise ProblemError(422, f"the request: {error}; /docs shows its form") from error
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise ProblemError(400, f"the request is not JSON ({error})") from error

        def work() -> bytes:
            pixels = read_pixels(image.content, self._options.max_pixels)
            return png_of(degradation.degrade(pixels, wanted.level, wanted.seed))

        async with self._scheduler.place():
            made = await wait_for(request, self._scheduler.finish(work), self._options.timeout)
        return Response(made, media_type="image/png")

    async def embedding(self, request: Request) -> Response:
        """Return an image's features as raw bytes."""
        image = self._scheduler.find(request.path_params["image_id"])
        dtype = request.query_params.get("dtype", "float32")
        kinds = {"float32": "<f4", "float16": "<f2"}
        if dtype not in kinds:
            raise ProblemError(422, f"dtype {dtype[:32]!r}: must be float32 or float16")
        name = request.query_params.get("name", "image_embeddings")
        if name not in image.features:
            raise ProblemError(
                404, f"name {name[:64]!r}: this model has {', '.join(image.features)}"
            )

        def work() -> tuple[bytes, tuple[int, ...]]:
            value = self._model.predictor.engine.to_host(image.features[name])
            return np.ascontiguousarray(value).astype(kinds[dtype]).tobytes(), value.shape

        raw, shape = await self._scheduler.finish(work)
        geometry = image.geometry
        headers = {
            "X-GleSAM-Shape": ",".join(map(str, shape)),
            "X-GleSAM-Dtype": dtype,
            "X-GleSAM-Names": ",".join(image.features),
            "X-GleSAM-Bundle-SHA256": self._model.bundle.sha256,
            "X-GleSAM-Enhanced": str(image.branch.enhanced).lower(),
            "X-GleSAM-Image-Size": f"{geometry.original[1]}x{geometry.original[0]}",
            "X-GleSAM-Resized-Size": f"{geometry.resized[1]}x{geometry.resized[0]}",
        }
        return Response(raw, headers=headers, media_type="application/octet-stream")

    def _enhance(self, request: Request) -> Mode:
        own, text = self._model.enhancing.mode, request.query_params.get("enhance")
        if text is None:
            return own
        if text not in _MODES:
            raise ProblemError(422, f"enhance={text[:32]!r}: must be true, false or auto")
        if text != "false" and not own:
            raise ProblemError(
                422,
                f"enhance={text}: this server runs with --enhance never; leave it out or send "
                "false",
            )
        if text == "auto" and isinstance(self._model.bundle.manifest.enhancement_gate, UnsetType):
            raise ProblemError(
                422, "enhance=auto: the bundle of this server has no gate; send true or false"
            )
        return _MODES[text]

    def _timestep(self, request: Request, enhance: Mode) -> int | None:
        """Return the timestep that the enhancer runs; None if it does not run or has one only."""
        text = request.query_params.get("timestep")
        if text is None:
            return self._model.predictor.timestep if enhance else None
        if not (text.isdecimal() and len(text) < 10):
            raise ProblemError(422, f"timestep={text[:32]!r}: must be a number from 0")
        if not enhance:
            raise ProblemError(422, f"timestep={text}: the enhancer does not run; leave it out")
        try:
            return check_timestep(self._model.bundle.manifest, int(text))
        except InputError as error:
            raise ProblemError(422, str(error)) from error

    async def _parts(self, request: Request, body: bytes) -> dict[str, bytes] | None:
        kind = request.headers.get("content-type", "")
        if not kind.lower().startswith("multipart/form-data"):
            return None
        if len(body) < _LARGE:
            return parts_of(kind, body)
        return await self._scheduler.finish(parts_of, kind, body)

    async def _name(self, content: bytes, enhance: Mode, timestep: int | None) -> str:
        """Return the id of an image file."""

        def work() -> str:
            digest = hashlib.sha256(content).digest()
            return image_id(digest, self._model.bundle.sha256, enhance, timestep)

        return work() if len(content) < _LARGE else await self._scheduler.finish(work)

    async def _encoded(
        self, request: Request, content: bytes, enhance: Mode, timestep: int | None
    ) -> tuple[EncodedImage, bool]:
        name = await self._name(content, enhance, timestep)
        async with self._scheduler.place():
            return await wait_for(
                request,
                self._scheduler.encode(name, content, enhance, timestep),
                self._options.timeout,
            )

    async def _segment(
        self, request: Request, image: EncodedImage, prompts: wire.SegmentRequest
    ) -> Response:
        if "image/png" in request.headers.get("accept", ""):

            def draw(logits: Logits) -> tuple[bytes, int, dict[str, str]]:
                return mask_png(logits, image, self._rules, prompts.threshold)

            logits, (png, best, headers), _ = await self._finished(image, prompts, draw)
            headers["X-GleSAM-Mask-Id"] = self._keep(image, logits)[best]
            return Response(png, headers=headers, media_type="image/png")
        stopped = False

        def describe(logits: Logits) -> tuple[list[wire.Mask], float]:
            return describe_masks(logits, image, self._rules, prompts, lambda: stopped)

        try:
            logits, (masks, seconds), elapsed = await self._finished(image, prompts, describe)
        finally:
            stopped = True
        names = self._keep(image, logits)
        self._metrics.stages({"masks": seconds})
        height, width = image.geometry.original
        answer = wire.SegmentAnswer(
            image_id=image.id,
            width=width,
            height=height,
            masks=[
                msgspec.structs.replace(mask, id=name)
                for mask, name in zip(masks, names, strict=True)
            ],
            seconds={"decoder": round(elapsed - seconds, 6), "masks": round(seconds, 6)},
        )
        return Response(wire.encode(answer), media_type=_JSON)

    async def _finished(
        self, image: EncodedImage, prompts: wire.SegmentRequest, work: Callable[[Logits], T]
    ) -> tuple[Logits, T, float]:
        """Run the decoder and then work on its logits; return both results and the seconds."""
        groups, start = groups_of(prompts, image), time.perf_counter()
        height, width = image.geometry.original
        candidates = 3 if prompts.multimask else 1
        pixels = len(prompts.prompts) * candidates * height * width
        if len(groups) == 1:
            short = pixels <= _SHORT and not prompts.polygons
            found = await self._scheduler.decode(
                image,
                groups[0].batch,
                prompts.multimask,
                (lambda low_res, scores: work(Logits(low_res, scores))) if short else None,
            )
            logits = Logits(found.low_res, found.scores)
            if found.made is not None:
                return logits, found.made, time.perf_counter() - start
        else:
            side, count = image.geometry.image_size // 4, len(prompts.prompts)
            logits = Logits(
                np.empty((count, candidates, side, side), np.float32),
                np.empty((count, candidates), np.float32),
            )
            for group in groups:
                part: Decoded[object] = await self._scheduler.decode(
                    image, group.batch, prompts.multimask
                )
                logits.low_res[group.members] = part.low_res
                logits.scores[group.members] = part.scores
        made = await self._scheduler.finish(work, logits)
        return logits, made, time.perf_counter() - start

    def _keep(self, image: EncodedImage, logits: Logits) -> list[str]:
        """Keep the logits for refinement; return the ids of the masks."""
        clipped = for_mask_input(logits.low_res, self._rules)
        names = [image.keep(each) for each in clipped.reshape(-1, *clipped.shape[2:])]
        self._scheduler.cache.grown(image)
        return names

    def _describe(self, image: EncodedImage, cached: bool) -> wire.ImageAnswer:
        (height, width), (stored_height, stored_width) = image.geometry.original, image.stored
        return wire.ImageAnswer(
            image_id=image.id,
            width=width,
            height=height,
            stored_width=stored_width,
            stored_height=stored_height,
            enhanced=image.branch.enhanced,
            estimate=image.branch.estimate,
            timestep=UNSET
            if image.timestep is None or not image.branch.enhanced
            else image.timestep,
            cached=cached,
            bytes=image.bytes,
            note=image.note,
            engine=self._model.predictor.engine.describe(),
            seconds={name: round(value, 6) for name, value in image.seconds.items()},
        )
