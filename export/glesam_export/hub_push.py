"""Uploads a bundle and its model card to the Hugging Face Hub, in one commit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from glesam_export.model_card import model_card
from glesam_export.verify.reference_outputs import Step
from glesam_runtime.bundle import Bundle
from glesam_runtime.errors import InputError
from glesam_runtime.hub import INSTALL, form_of
from glesam_runtime.manifest import MANIFEST_FILE
from glesam_runtime.manifest_file import file_refs
from glesam_runtime.verbosity import shows_progress

CARD = "README.md"


@dataclass(frozen=True)
class Pushed:
    """Where a bundle is now."""

    repository: str
    revision: str
    """The hash of the commit."""


def push_bundle(bundle: Bundle, target: str, step: Step, *, private: bool = False) -> Pushed:
    """Upload the files of a verified bundle. The repository is created if it does not exist.

    Args:
        bundle: the bundle. Only the files that its manifest names are uploaded.
        target: "org/name", or "org/name@branch".
        step: reports long steps.
        private: whether a new repository is private.

    Raises:
        InputError: the name is wrong, huggingface_hub is not installed, or the hub refuses.
    """
    wanted = form_of(target)
    if wanted is None:
        raise InputError(f"{target}: not the name of a repository; write ORG/NAME")
    try:
        import httpx
        from huggingface_hub import CommitOperationAdd, HfApi, constants
        from huggingface_hub.errors import HfHubHTTPError
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed: {INSTALL}") from error
    if not shows_progress():
        disable_progress_bars()
    names = [MANIFEST_FILE, *(ref.file for ref in file_refs(bundle.manifest))]
    operations: list[Any] = [
        CommitOperationAdd(name, str(bundle.path / name)) for name in dict.fromkeys(names)
    ]
    card = model_card(bundle, wanted.name).encode()
    operations.append(CommitOperationAdd(CARD, card))
    model = bundle.manifest.model
    api = HfApi()
    try:
        with step(f"upload to {wanted}"):
            api.create_repo(wanted.name, private=private, exist_ok=True)
            commit = api.create_commit(
                wanted.name,
                operations,
                commit_message=f"Upload GleSAM {model.preset} with {model.unet}",
                revision=wanted.revision,
            )
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        if status in (401, 403):
            raise InputError(
                f"{wanted}: {constants.ENDPOINT} refuses the token, or it may not write there; "
                "set HF_TOKEN to a token with write access"
            ) from error
        raise InputError(f"{wanted}: not uploaded ({_one_line(error)})") from error
    except (OSError, ValueError, httpx.HTTPError) as error:
        raise InputError(
            f"{wanted}: not uploaded ({_one_line(error)}); check the connection to "
            f"{constants.ENDPOINT}"
        ) from error
    return Pushed(wanted.name, commit.oid)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
