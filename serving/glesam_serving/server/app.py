"""Assemble the server's app: routes, errors, and what stands before them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from glesam_runtime.errors import GlesamError
from glesam_serving import wire
from glesam_serving.memory import free_memory
from glesam_serving.problems import ProblemError, respond
from glesam_serving.server import openapi
from glesam_serving.server.guard import Guard, no_such
from glesam_serving.server.images import ImageCache
from glesam_serving.server.metrics import Metrics
from glesam_serving.server.model import Model
from glesam_serving.server.pages import Page
from glesam_serving.server.routes import Routes
from glesam_serving.server.scheduler import Scheduler
from glesam_serving.server.status_routes import StatusRoutes

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

    from glesam_serving.settings import ServerOptions

_EXPOSED = ("Retry-After", "Location", "X-GleSAM-*")


def create_app(model: Model, options: ServerOptions, *, debug: bool = False) -> ASGIApp:
    """Return the ASGI app of a server.

    Args:
        model: the loaded model; the app closes it when it shuts down.
        options: what the server requires and allows.
        debug: whether bugs print a traceback on stderr.
    """
    metrics = Metrics()
    limit = options.cache_bytes or free_memory() // 4
    scheduler = Scheduler(model, ImageCache(limit), metrics, options.queue, options.max_pixels)
    routes = Routes(scheduler, options, metrics)
    status = StatusRoutes(scheduler.model, options, metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        scheduler.start()
        yield
        status.draining = True
        await scheduler.stop()

    app = FastAPI(
        title="glesam-serve",
        version=version("glesam-runtime"),
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
    )
    _add_routes(app, routes, status)
    docs = openapi.Docs(openapi.with_schemas(app.openapi()))
    app.add_route("/docs", docs.page)
    app.add_route("/openapi.json", docs.document)
    app.add_route("/{path:path}", Page(options.page).file)
    app.add_exception_handler(GlesamError, _problem)
    app.add_exception_handler(HTTPException, _unknown)
    guarded: ASGIApp = Guard(app, options, metrics, debug)
    if options.cors:
        guarded = CORSMiddleware(
            guarded,
            allow_origins=options.cors,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=_EXPOSED,
        )
    return guarded


def _add_routes(app: FastAPI, routes: Routes, status: StatusRoutes) -> None:
    """Add the endpoints of the API with their descriptions."""
    form = openapi.body(image=openapi.image_field())
    both = openapi.body(
        image=openapi.image_field(), request=openapi.json_field(wire.SegmentRequest)
    )
    choices = [
        openapi.query("enhance", ["true", "false", "auto"], "true"),
        openapi.number("timestep"),
    ]
    enhance = {"parameters": choices}
    dtype = {"parameters": [openapi.query("dtype", ["float32", "float16"], "float32")]}
    segment = openapi.body(wire.SegmentRequest)
    image = openapi.answers(wire.ImageAnswer, 200)
    masks = openapi.answers(wire.SegmentAnswer, 200)
    raw = openapi.answers(None, 200, media_type="application/octet-stream")
    ndjson = openapi.answers(None, 200, media_type="application/x-ndjson")
    png = openapi.answers(None, 200, media_type="image/png")
    one = "/v1/images/{image_id}"
    created = openapi.answers(wire.ImageAnswer, 200, 201)
    degrade = openapi.body(wire.DegradeRequest)
    plain = openapi.answers(None, 200)
    table = [
        ("POST", "/v1/images", routes.create_image, created, {**form, **enhance}),
        ("GET", one, routes.get_image, image, {}),
        ("DELETE", one, routes.delete_image, openapi.answers(None), {}),
        ("POST", f"{one}/segment", routes.segment_image, masks, segment),
        ("POST", "/v1/segment", routes.segment, masks, {**both, **enhance}),
        ("POST", f"{one}/everything", routes.everything, ndjson, {}),
        ("POST", f"{one}/degrade", routes.degrade, png, degrade),
        ("GET", f"{one}/embedding", routes.embedding, raw, dtype),
        ("GET", "/v1/bundle", status.bundle, openapi.answers(wire.BundleAnswer, 200), {}),
        ("GET", "/v1/sample", status.sample, png, {}),
        ("GET", "/health/live", status.live, plain, {}),
        ("GET", "/health/ready", status.ready, plain, {}),
        ("GET", "/metrics", status.metrics, plain, {}),
    ]
    for method, path, answer, responses, extra in table:
        app.add_api_route(
            path,
            answer,
            methods=[method],
            responses=responses,
            openapi_extra=extra,
            response_model=None,
        )


async def _problem(_: Request, error: Exception) -> Response:
    return respond(error)


async def _unknown(request: Request, error: Exception) -> Response:
    """Answer a path or a method that no route has."""
    if isinstance(error, HTTPException) and error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        problem = ProblemError(
            405,
            f"{request.method} is not allowed at {request.url.path[:100]!r}; use "
            f"{allowed or 'another method'}",
            error.headers,
        )
        return respond(problem)
    return respond(no_such(dict(request.scope)))
