"""Describe the API: an OpenAPI document, and a page made from it that loads nothing."""

from __future__ import annotations

from html import escape
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from glesam_serving import wire

_REF = "#/components/schemas/{name}"
_TYPES = (
    wire.SegmentRequest,
    wire.SegmentAnswer,
    wire.ImageAnswer,
    wire.EverythingMask,
    wire.DegradeRequest,
    wire.BundleAnswer,
    wire.Problem,
)
_FORM = "multipart/form-data"
_BINARY = {"type": "string", "format": "binary"}


def body(schema: type | None = None, **fields: Any) -> dict[str, Any]:
    """Describe a body: JSON of a type, or a form with these fields."""
    if schema is not None:
        content: dict[str, Any] = {"application/json": {"schema": _ref(schema)}}
    else:
        form = {"type": "object", "properties": fields, "required": list(fields)}
        content = {_FORM: {"schema": form}}
        if set(fields) == {"image"}:
            content["image/*"] = {"schema": _BINARY}
    return {"requestBody": {"required": True, "content": content}}


def image_field() -> dict[str, str]:
    """Describe a field that holds an image file."""
    return dict(_BINARY)


def json_field(schema: type) -> dict[str, str]:
    """Describe a field that holds JSON of a type."""
    return _ref(schema)


def query(name: str, values: list[str], default: str) -> dict[str, Any]:
    """Describe a parameter of the query."""
    schema = {"type": "string", "enum": values, "default": default}
    return {"name": name, "in": "query", "required": False, "schema": schema}


def number(name: str) -> dict[str, Any]:
    """Describe an optional parameter of the query that is a number from 0."""
    schema = {"type": "integer", "minimum": 0}
    return {"name": name, "in": "query", "required": False, "schema": schema}


def answers(
    schema: type | None, *statuses: int, media_type: str = "application/json"
) -> dict[int | str, dict[str, Any]]:
    """Describe the answers of an endpoint: of a type or of bytes, and problems."""
    content = {media_type: {"schema": _BINARY if schema is None else _ref(schema)}}
    found: dict[int | str, dict[str, Any]] = {
        status: {"description": "Success", "content": content} for status in statuses
    }
    problem = {"application/problem+json": {"schema": _ref(wire.Problem)}}
    found["default"] = {"description": "A problem (RFC 9457)", "content": problem}
    return found


def with_schemas(document: dict[str, Any]) -> dict[str, Any]:
    """Add the schemas of the types to an OpenAPI document."""
    _, parts = msgspec.json.schema_components(_TYPES, ref_template=_REF)
    document.setdefault("components", {}).setdefault("schemas", {}).update(parts)
    return document


def _ref(schema: type) -> dict[str, str]:
    return {"$ref": _REF.format(name=schema.__name__)}


def docs_page(document: dict[str, Any]) -> str:
    """Return an HTML page that lists endpoints and schemas. It has no script and loads no file."""
    rows = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            summary = escape(operation.get("description") or operation.get("summary", ""))
            wanted = ", ".join(map(escape, operation.get("requestBody", {}).get("content", {})))
            names = ", ".join(escape(p["name"]) for p in operation.get("parameters", []))
            rows.append(
                f"<tr><td><code>{method.upper()} {escape(path)}</code></td><td>{summary}</td>"
                f"<td>{names}</td><td>{wanted}</td></tr>"
            )
    schemas = "".join(
        f"<h3 id={escape(name)}>{escape(name)}</h3><p>{escape(schema.get('description', ''))}</p>"
        + _properties(schema)
        for name, schema in document["components"]["schemas"].items()
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport "
        'content="width=device-width"><title>glesam-serve</title>'
        f"<h1>{escape(document['info']['title'])} {escape(document['info']['version'])}</h1>"
        '<p>The same as an OpenAPI document: <a href="/openapi.json">/openapi.json</a>. Errors are '
        "problem details (RFC 9457).</p><table border=1 cellpadding=4><tr><th>request<th>what it "
        f"does<th>parameters<th>body</tr>{''.join(rows)}</table><h2>Schemas</h2>{schemas}</html>"
    )


def _properties(schema: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td><code>"
        f"{escape(msgspec.json.encode(value).decode())}</code></td></tr>"
        for name, value in schema.get("properties", {}).items()
    )
    return f"<table border=1 cellpadding=4>{rows}</table>"


class Docs:
    """Answers /docs and /openapi.json."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._json = msgspec.json.encode(document)
        self._html = docs_page(document).encode()

    async def page(self, request: Request) -> Response:
        """Return the page."""
        return Response(self._html, media_type="text/html; charset=utf-8")

    async def document(self, request: Request) -> Response:
        """Return the OpenAPI document."""
        return Response(self._json, media_type="application/json")
