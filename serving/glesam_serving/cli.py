"""Implement glesam-serve: load a bundle and answer requests until SIGTERM or Ctrl-C."""

from __future__ import annotations

import socket
from typing import Annotated, NoReturn

import typer

from glesam_runtime.common_options import make_app
from glesam_runtime.console import run_app
from glesam_runtime.engine_options import RequestedEngine
from glesam_runtime.errors import InputError
from glesam_runtime.option_groups import expand_groups
from glesam_runtime.run_options import EnhanceOptions, PromptBatchSize
from glesam_runtime.terminal_text import print_line
from glesam_runtime.verbosity import is_debug, print_note
from glesam_serving.settings import ServerOptions

app = make_app("Serve a GleSAM bundle over HTTP, with a page to click on.")


def main() -> NoReturn:
    """Run the glesam-serve command."""
    run_app(app, "glesam-serve")


@app.command()
@expand_groups
def serve(
    engine: RequestedEngine,
    server: ServerOptions,
    enhancing: EnhanceOptions,
    bundle: Annotated[
        str | None,
        typer.Argument(
            metavar="[BUNDLE]",
            help="Bundle folder, or a Hugging Face repository ORG/NAME[@REVISION]. Default: the "
            "built-in nano.",
        ),
    ] = None,
    prompt_batch: PromptBatchSize = None,
) -> None:
    """Load BUNDLE and serve it until SIGTERM or Ctrl-C.

    Running requests are finished then, and new ones refused. The address is the first line that is
    printed.
    """
    engine.check_backend()
    enhance = enhancing.mode()
    server.check()
    if server.page is not None:
        from glesam_serving.server.pages import check_site

        check_site(server.page)
    listening = _bind(server)
    try:
        from glesam_runtime.bundle import open_bundle
        from glesam_runtime.expected_work import LASTING
        from glesam_runtime.predictor import GleSamPredictor
        from glesam_serving.server.model import Model
        from glesam_serving.server.run import BACKLOG, run_server

        opened = open_bundle(bundle)
        if bundle is None:
            print_note("using the built-in nano bundle; an argument names another")
        if not opened.manifest.model.trained:
            print_note("this bundle is untrained, its masks are meaningless")
        predictor = GleSamPredictor(
            opened,
            backend=engine.backend,
            device=engine.device,
            enhance=enhance,
            options=engine.options(),
            prompt_batch=prompt_batch,
            timestep=enhancing.timestep,
            work=LASTING,
        )
        if predictor.engine_reason:
            print_note(predictor.engine_reason)
        model = Model(predictor, engine.streams)
        listening.listen(BACKLOG)
        host, port = listening.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        print_line(f"http://{shown}:{port}")
        run_server(model, server, listening, debug=is_debug())
    finally:
        listening.close()


def _bind(server: ServerOptions) -> socket.socket:
    """Take the address before a model is loaded; connections are accepted later.

    Raises:
        InputError: the address cannot be used.
    """
    try:
        found = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except OSError as error:
        raise InputError(
            f"--host {server.host} --port {server.port}: cannot be used "
            f"({error.strerror or error}); choose another port or stop what uses it"
        ) from error
    return made
