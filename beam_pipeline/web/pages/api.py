"""Marks by HTTP, for programs with a token.

    curl -H "Authorization: Bearer $TOKEN" -H "Content-Type: application/json" \\
        -d '{"alert_id": "e4c827d3011cb7bc20f5352923627fba", "mark": "false"}' \\
        https://console.example.com/api/marks

Only a token authorises it, never the cookie of a browser or the header of a proxy, so no page of
another site can use it in somebody's name.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from beam_pipeline.fleet.marking import Said
from beam_pipeline.web.access.users import OPERATOR
from beam_pipeline.web.pages.console import Console
from beam_pipeline.web.pages.forms import FormError, read_body
from beam_pipeline.web.pages.marking import save_mark
from rules.text import escaped, shortened
from transforms.storage.marks import MARKS, check_box

_LOGGER = logging.getLogger(__name__)
_ONE_LIMIT = "token"
"""All tokens of an address share one limit: who guesses does not say which one."""
_REALM = {"WWW-Authenticate": 'Bearer realm="marks"'}


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_text_or_null(value: Any) -> bool:
    return value is None or isinstance(value, str)


_KEYS: Mapping[str, Callable[[Any], bool]] = {
    "alert_id": _is_text,
    "image": _is_text,
    "id": _is_text_or_null,
    "mark": lambda value: value in MARKS,
    "label": _is_text_or_null,
    "bboxes": lambda value: isinstance(value, list),
    "note": _is_text,
}


async def post_mark(console: Console, request: Request) -> Response:
    """Saves the mark of a program."""
    guard = console.guarded
    client = guard.client(request)
    wait = guard.token_failures.wait_seconds(client, _ONE_LIMIT)
    if wait:
        return _error(429, "Too many wrong tokens.", {"Retry-After": str(wait)})
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        return _error(401, "Give a token: Authorization: Bearer TOKEN.", _REALM)
    users = guard.access.users
    by = None if users is None else users.name_of_token(token.strip())
    if by is None:
        guard.token_failures.note_failure(client, _ONE_LIMIT)
        _LOGGER.warning("a wrong token came from %s", client or "an unknown address")
        return _error(401, "There is no such token.", _REALM)
    try:
        said, camera = _said(await _json(request), by)
        mark = await save_mark(console, said, camera, OPERATOR)
    except FormError as error:
        return _error(error.status, str(error))
    return JSONResponse(mark.to_json(), 201)


def _error(status: int, text: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": text}, status, headers)


async def _json(request: Request) -> dict[str, Any]:
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise FormError(415, "The body is not application/json.")
    try:
        value = json.loads(await read_body(request))
        json.dumps(value, ensure_ascii=False).encode()  # It fails for half a character.
    except (ValueError, RecursionError):
        raise FormError(400, "The body is no JSON.") from None
    if not isinstance(value, dict):
        raise FormError(400, "The body is no JSON object.")
    return value


def _said(value: Mapping[str, Any], by: str) -> tuple[Said, str | None]:
    """Returns what a program says, and of which camera if it says so.

    Raises:
      FormError: It is no mark.
    """
    for key, entry in value.items():
        fits = _KEYS.get(key)
        if fits is None:
            known = ", ".join(_KEYS)
            raise FormError(400, f"{shortened(escaped(key))}: no such key; there are {known}.")
        if not fits(entry):
            raise FormError(400, f"{key}: this can't be its value.")
    if ("alert_id" in value) == ("image" in value):
        raise FormError(400, "Give either alert_id, or image with the name of an image.")
    if "mark" not in value:
        raise FormError(400, f"Give mark: one of {', '.join(MARKS)}.")
    try:
        boxes = [check_box(box) for box in value.get("bboxes", ())]
        boxes = [check_box([round(side, 4) for side in box]) for box in boxes]
    except (ValueError, TypeError) as error:
        raise FormError(400, f"bboxes: {error}.") from None
    said = Said(
        what=value.get("alert_id") or value.get("image") or "",
        mark=value["mark"],
        by=by,
        label=value.get("label"),
        bboxes=tuple(boxes),
        note=value.get("note", ""),
    )
    return said, value.get("id")
