"""Segment in CVAT with a glesam-serve server, as a serverless function of Nuclio.

CVAT's server calls such a function with a picture and clicks. It needs no model of its own: it asks
the server whose address is in GLESAM_SERVER. `function.yaml` beside this file describes it.
"""

from __future__ import annotations

import base64
import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from glesam_runtime.errors import GlesamError, InputError
from glesam_serving import Client
from glesam_serving.client import ServerError

if TYPE_CHECKING:
    from nuclio_sdk import Context, Event, Response


def init_context(context: Context) -> None:
    """Connect to the server. Nuclio calls this once for each worker."""
    server = os.environ.get("GLESAM_SERVER", "http://127.0.0.1:8000")
    context.user_data.client = Client(server, api_key=os.environ.get("GLESAM_API_KEY"))
    context.logger.info(f"segmenting with {server}")


def handler(context: Context, event: Event) -> Response:
    """Answer one request of CVAT's interactor: a picture and clicks to a mask.

    The body has `image` (a file in base64), `pos_points`, `neg_points` and, optionally, `obj_bbox`
    with two corners. The answer has `mask`, rows of 0 and 1.
    """
    try:
        body = event.body if isinstance(event.body, dict) else json.loads(event.body)
        answer = _segment(context.user_data.client, body)
    except (KeyError, TypeError, ValueError, InputError) as error:
        return _answer(context, {"error": f"the request cannot be used ({error})"}, 400)
    except GlesamError as error:
        status = error.status if isinstance(error, ServerError) else None
        refused = status is not None and 400 <= status < 500
        return _answer(context, {"error": str(error)}, 400 if refused else 502)
    return _answer(context, answer, 200)


def _segment(client: Client, body: dict[str, Any]) -> dict[str, Any]:
    positive, negative = body.get("pos_points") or [], body.get("neg_points") or []
    corners = body.get("obj_bbox") or None
    # The server knows a picture by its bytes, so only the first click encodes it.
    client.set_image(base64.b64decode(body["image"], validate=True))
    masks, _scores, _low_res = client.predict(
        [*positive, *negative] or None,
        [1] * len(positive) + [0] * len(negative) or None,
        None if corners is None else np.ravel(corners),
        multimask_output=False,
    )
    return {"mask": masks[0].astype(np.uint8).tolist()}


def _answer(context: Context, body: dict[str, Any], status: int) -> Response:
    return context.Response(
        body=json.dumps(body), headers={}, content_type="application/json", status_code=status
    )
