"""Use a server from Python as GleSamPredictor is used: set an image once, prompt it many times."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import numpy as np
from PIL import Image

from glesam_runtime import masks
from glesam_runtime.errors import GlesamError, InputError
from glesam_runtime.image import Geometry, check_image, geometry_of
from glesam_runtime.manifest import Postprocessing
from glesam_runtime.prompts import as_batch
from glesam_runtime.rle import decode_rle
from glesam_serving import wire

if TYPE_CHECKING:
    import os

    from numpy.typing import ArrayLike, NDArray

    from glesam_runtime.enhancing import Mode

_TRIES = 5
"""How often a request is sent while the server's queue is full."""


class ServerError(GlesamError):
    """Raised for an answer that is an error, or none at all."""

    def __init__(self, message: str, status: int | None = None) -> None:
        """Describe the error; `status` is the HTTP status, None without an answer."""
        super().__init__(message)
        self.status = status


class Client:
    """A client with the signature of `GleSamPredictor.predict`.

    It holds one image at a time and is not thread-safe: give each thread its own. An image that the
    server no longer has is sent again.
    """

    def __init__(
        self, url: str = "http://127.0.0.1:8000", *, api_key: str | None = None, timeout: float = 90
    ) -> None:
        """Connect to a server.

        Args:
            url: the server's address.
            api_key: the key that the server requires.
            timeout: seconds to wait for an answer.
        """
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout)
        self._content: bytes | None = None
        self._enhance: Mode | None = None
        self._timestep: int | None = None
        self._bundle: wire.BundleAnswer | None = None
        self.image: wire.ImageAnswer | None = None
        """The server's description of the image."""
        self.answer: wire.SegmentAnswer | None = None
        """The latest answer to `predict`; the `id` of its masks can be a later `mask_input`."""

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def bundle(self) -> wire.BundleAnswer:
        """Return the description of the server's bundle."""
        if self._bundle is None:
            answer = self._send("GET", "/v1/bundle")
            self._bundle = msgspec.json.decode(answer.content, type=wire.BundleAnswer)
        return self._bundle

    def set_image(
        self,
        image: NDArray[np.uint8] | bytes | str | os.PathLike[str],
        image_format: str = "RGB",
        *,
        enhance: Mode | None = None,
        timestep: int | None = None,
    ) -> wire.ImageAnswer:
        """Send an image to the server, which encodes it.

        Args:
            image: a file, its bytes, or pixels: uint8 [H, W, 3].
            image_format: order of an array's channels, "RGB" or "BGR".
            enhance: True runs the enhancer, False does not, and "auto" does if the bundle's gate
                estimates a gain; None is the server's default.
            timestep: the timestep that the enhancer runs, for a bundle with several; None is the
                server's default.

        Raises:
            InputError: the array or the file cannot be used.
            ServerError: the server refuses the image, or does not answer.
        """
        if isinstance(image, bytes):
            content = image
        elif isinstance(image, np.ndarray):
            content = _png(image, image_format)
        else:
            try:
                content = Path(image).read_bytes()
            except OSError as error:
                raise InputError(f"{image}: cannot be read ({error.strerror})") from error
        self._content, self._enhance, self._timestep = content, enhance, timestep
        return self._upload()

    def predict(
        self,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask_input: ArrayLike | str | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[NDArray[np.bool_] | NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Predict masks for one prompt, or for B prompts at once, as `GleSamPredictor.predict`.

        The server refuses boxes whose corners are swapped, which the predictor takes. `mask_input`
        may also be the `id` of a mask of an earlier `answer`: its logits are then not sent.

        Raises:
            InputError: no image is set, or a prompt cannot be used.
            ServerError: the server refuses the request, or does not answer.
        """
        if self.image is None:
            raise InputError("no image is set; call set_image first")
        name = mask_input if isinstance(mask_input, str) else None
        logits = None if isinstance(mask_input, str) else mask_input
        geometry = self._geometry(self.image)
        if name is not None and point_coords is None and box is None:
            batched, prompts = False, [wire.Prompt(mask_from=name)]
        else:
            batched, batch = as_batch(geometry, point_coords, point_labels, box, logits)
            prompts = [
                wire.Prompt(
                    points=batch.points[index].tolist(),
                    labels=batch.labels[index].tolist() if batch.points.shape[1] else None,
                    box=None if batch.boxes is None else tuple(batch.boxes[index].tolist()),
                    mask_from=name,
                    mask_input=None if batch.masks is None else _base64(batch.masks[index]),
                )
                for index in range(batch.size)
            ]
        request = wire.SegmentRequest(
            prompts, multimask_output, rle=not return_logits, low_res=True
        )
        count, side = 3 if multimask_output else 1, geometry.image_size // 4
        shape = (len(prompts), count)
        if not prompts:  # such as no boxes, [0, 4]
            kind = np.float32 if return_logits else np.bool_
            return (
                np.zeros((*shape, *geometry.original), kind),
                np.zeros(shape, np.float32),
                np.zeros((*shape, side, side), np.float32),
            )
        answer = self._segment(request)
        low_res = np.stack([_logits(mask.low_res or "", side) for mask in answer.masks])
        low_res = low_res.reshape(*shape, side, side)
        scores = np.asarray([mask.predicted_iou for mask in answer.masks], np.float32)
        full: NDArray[np.bool_] | NDArray[np.float32]
        if return_logits:
            full = masks.upscale(low_res, geometry, self._rules())
        else:
            full = np.stack([_decoded(mask) for mask in answer.masks])
            full = full.reshape(*shape, *geometry.original)
        scores = scores.reshape(shape)
        return (full, scores, low_res) if batched else (full[0], scores[0], low_res[0])

    def everything(self, **parameters: float) -> Iterator[dict[str, Any]]:
        """Yield the lines of everything-mode: progress, then masks. Closing it ends the search.

        Args:
            parameters: those of `GleSamMaskGenerator` that are numbers.

        Raises:
            InputError: no image is set.
            ServerError: the server refuses the request, or the search fails.
        """
        if self.image is None:
            raise InputError("no image is set; call set_image first")
        path = f"/v1/images/{self.image.image_id}/everything"
        try:
            with self._http.stream("POST", path, json=parameters) as answer:
                if answer.is_error:
                    answer.read()
                    raise _refused(answer)
                for line in answer.iter_lines():
                    found: dict[str, Any] = msgspec.json.decode(line)
                    if "error" in found:
                        raise ServerError(found["error"]["detail"], found["error"]["status"])
                    yield found
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def embedding(self, name: str = "image_embeddings") -> NDArray[np.float32]:
        """Return features of the image, float32: `image_embeddings` [1, 256, S/16, S/16]."""
        if self.image is None:
            raise InputError("no image is set; call set_image first")
        answer = self._send(
            "GET", f"/v1/images/{self.image.image_id}/embedding", params={"name": name}
        )
        shape = [int(size) for size in answer.headers["X-GleSAM-Shape"].split(",")]
        return np.frombuffer(answer.content, "<f4").reshape(shape).astype(np.float32)

    def _upload(self) -> wire.ImageAnswer:
        params = {} if self._enhance is None else {"enhance": str(self._enhance).lower()}
        params |= {} if self._timestep is None else {"timestep": str(self._timestep)}
        answer = self._send("POST", "/v1/images", content=self._content, params=params)
        self.image = msgspec.json.decode(answer.content, type=wire.ImageAnswer)
        return self.image

    def _segment(self, request: wire.SegmentRequest) -> wire.SegmentAnswer:
        content = msgspec.json.encode(request)
        refines = any(prompt.mask_from is not None for prompt in request.prompts)
        for last in (False, True):
            assert self.image is not None
            try:
                answer = self._send(
                    "POST", f"/v1/images/{self.image.image_id}/segment", content=content
                )
                break
            except ServerError as error:
                if error.status != 404 or last or refines:
                    raise
                self._upload()  # the image made room for others
        self.answer = msgspec.json.decode(answer.content, type=wire.SegmentAnswer)
        return self.answer

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Send a request, again if the queue is full, and return a good answer."""
        for left in reversed(range(_TRIES)):
            try:
                answer = self._http.request(method, path, **arguments)
            except httpx.HTTPError as error:
                raise self._unreachable(error) from error
            if answer.status_code != 429 or not left:
                break
            time.sleep(min(10.0, float(answer.headers.get("Retry-After", "1"))))
        if answer.is_error:
            raise _refused(answer)
        return answer

    def _unreachable(self, error: httpx.HTTPError) -> ServerError:
        return ServerError(
            f"{self._http.base_url}: no answer ({error or type(error).__name__}); check the "
            "address and that glesam-serve runs"
        )

    def _geometry(self, image: wire.ImageAnswer) -> Geometry:
        rules = self.bundle().preprocessing
        return geometry_of(image.height, image.width, rules["image_size"], rules["resize"])

    def _rules(self) -> Postprocessing:
        return msgspec.convert(self.bundle().postprocessing, Postprocessing)


def _refused(answer: httpx.Response) -> ServerError:
    """Return the error of an answer, in the words of its problem document."""
    try:
        detail = msgspec.json.decode(answer.content, type=wire.Problem).detail
    except msgspec.DecodeError:
        detail = f"{answer.url}: answered {answer.status_code} without saying why"
    return ServerError(detail, answer.status_code)


def _png(image: NDArray[np.uint8], image_format: str) -> bytes:
    if image_format not in ("RGB", "BGR"):
        raise InputError(f'image_format {image_format!r}: must be "RGB" or "BGR"')
    pixels = check_image(image)
    file = io.BytesIO()
    rgb = pixels if image_format == "RGB" else np.ascontiguousarray(pixels[..., ::-1])
    Image.fromarray(rgb).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _base64(logits: NDArray[np.float32]) -> str:
    return base64.b64encode(logits.astype("<f4").tobytes()).decode("ascii")


def _logits(text: str, side: int) -> NDArray[np.float32]:
    raw = base64.b64decode(text)
    return np.frombuffer(raw, "<f4").reshape(side, side).astype(np.float32)


def _decoded(mask: wire.Mask) -> NDArray[np.bool_]:
    if mask.rle is None:
        raise ServerError("the answer has no masks; the server is another version than the client")
    return decode_rle({"size": list(mask.rle.size), "counts": mask.rle.counts})
