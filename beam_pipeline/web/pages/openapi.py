"""The description of the console's routes in OpenAPI, which the console serves as `/openapi.json`.

Each route of `beam_pipeline.web.app` has an entry in `OPERATIONS`. Tests hold that the routes, the
roles and the answers are these, and try all of them with data that schemathesis makes up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from beam_pipeline.web.access.guarding import COOKIE
from beam_pipeline.web.access.users import ADMIN, OPERATOR, VIEWER
from beam_pipeline.web.pages.console import Console
from transforms.storage.marks import MARKS

Json = dict[str, Any]

HTML, TEXT, JSON, SVG, JPEG = (
    *("text/html", "text/plain", "application/json"),
    *("image/svg+xml", "image/jpeg"),
)
_TEXT: Json = {"type": "string"}
_SAID: Json = {"type": "object", "properties": {"said": _TEXT}, "required": ["said"]}
_ERROR: Json = {"type": "object", "properties": {"error": _TEXT}, "required": ["error"]}
_CAMERA: Json = {"type": "string", "description": "The id of a camera."}
_STEM: Json = {
    "type": "string",
    "description": "The name of an image, without its ending: hall_2026-01-31T12-30-00Z.",
}
_MINUTE: Json = {"type": "string", "description": "A time in UTC: 2026-01-31T18:00."}
_PATH: Mapping[str, Json] = {
    "alert_id": {"type": "string", "description": "32 hex digits."},
    "camera": _CAMERA,
    "stem": _STEM,
    "name": _TEXT,
    "token": {"type": "string", "description": "The payload and the signature of a link."},
}
_TOKEN: Json = {"type": "string", "description": "The hidden field of each form of a page."}
_FILTER: Mapping[str, Json] = {
    **dict.fromkeys(("camera", "label", "severity"), _TEXT),
    "mark": {"type": "string", "description": f"One of {', '.join(MARKS)}, unmarked."},
    "since": _MINUTE,
    "until": _MINUTE,
    "before": {"type": "string", "description": "The end of the page before."},
}
_TEXTS: Mapping[int, str] = {
    200: "OK.",
    201: "Saved.",
    303: "To another page: to the log-in, or to what the form has changed.",
    304: "The copy of the browser is still right.",
    400: "A value is wrong; the answer says which.",
    401: "Nobody is logged in, or the token is wrong.",
    403: "The role does not suffice, or the form comes from elsewhere.",
    404: "There is no such thing.",
    409: "Something has changed meanwhile; nothing was written.",
    410: "The link has ended.",
    413: "The body is too large.",
    415: "The body has another content type.",
    421: "The console is not reached under this name.",
    422: "There can be no such area; the page says why.",
    429: "Too many tries, or too many open pages.",
    500: "What is stored is damaged; the answer says what.",
    503: "The store does not answer now.",
}


@dataclass(frozen=True)
class Operation:
    """A route and a method.

    Attributes:
      summary: What it does.
      answers: The media types of each status, besides those with which `Guard` refuses.
      role: The role that it needs; None for a route that is open.
      query: The parameters of the address, by name.
      form: The fields of the form that it takes; None for no form.
      json: The schema of the JSON that it takes; None for none.
      schemas: The schemas of the JSON that it answers, by status.
      headers: The headers that it reads, by name.
      has_token: Whether a token authorises it, and nothing else.
    """

    summary: str
    answers: Mapping[int, tuple[str, ...]]
    role: str | None = VIEWER
    query: Mapping[str, Json] = field(default_factory=dict)
    form: Mapping[str, Json] | None = None
    json: Json | None = None
    schemas: Mapping[int, Json] = field(default_factory=dict)
    headers: Mapping[str, Json] = field(default_factory=dict)
    has_token: bool = False


def _page(summary: str, *further: int, role: str | None = VIEWER, **more: Any) -> Operation:
    """A page, and the other statuses that it can have."""
    return Operation(summary, dict.fromkeys((200, *further), (HTML,)), role, **more)


def _form(
    summary: str, fields: Mapping[str, Json], *further: int, role: str | None = OPERATOR
) -> Operation:
    """A form: its answer is a page, or JSON for the script of a page."""
    statuses = 400, 403, 413, 415, *further
    answers: dict[int, tuple[str, ...]] = {303: (), **dict.fromkeys(statuses, (HTML, JSON))}
    return Operation(
        summary, answers, role, form=fields, schemas=dict.fromkeys(statuses, _SAID),
        headers={"X-Console": {"type": "string", "description": "Asks for JSON."}},
    )  # fmt: skip


_MARK: Json = {
    "type": "object",
    "properties": {
        "alert_id": {"type": "string", "description": "The alert; or give image."},
        "image": {"type": "string", "description": "The name of an image; or give alert_id."},
        "id": {"type": ["string", "null"], "description": "The camera, if it is known."},
        "mark": {"enum": list(MARKS)},
        "label": {"type": ["string", "null"]},
        "bboxes": {
            "type": "array",
            "description": "x_min, y_min, width and height as fractions of the image.",
            "items": {
                "type": "array",
                "items": {"type": "number", "minimum": 0, "maximum": 1},
                "minItems": 4,
                "maxItems": 4,
            },
        },
        "note": _TEXT,
    },
    "required": ["mark"],
    "additionalProperties": False,
}
_SAVED: Json = {
    "type": "object",
    "properties": {
        **dict.fromkeys(
            ("format_version", "id", "timestamp", "alert_id", "note", "by", "at"), _TEXT
        ),
        "mark": {"enum": list(MARKS)},
        "label": {"type": ["string", "null"]},
        "bboxes": {"type": "array"},
        "threats": {"type": "array"},
    },
    "required": ["id", "timestamp", "alert_id", "mark", "label", "by", "at"],
}
_CHANGE_ERRORS = 404, 409, 503
_AREA: Mapping[str, Json] = {
    "section": {"enum": ["zones", "mask"]},
    "anchor": _TEXT,
    "days": _TEXT,
    **dict.fromkeys(("name", "is_new", "corners", "min_overlap", "about"), _TEXT),
}


def _mark_form(summary: str, fields: Mapping[str, Json]) -> Operation:
    """A form whose answer to the script of a page is JSON if it was saved too."""
    form = _form(summary, fields, *(500, 503))
    schemas = {200: _SAID, **form.schemas}
    return replace(form, answers={200: (JSON,), **form.answers}, schemas=schemas)


def _tried(summary: str, fields: Mapping[str, Json]) -> Operation:
    """A form that changes nothing: its answer is the page again, or JSON for its script."""
    form = _form(summary, fields, *_CHANGE_ERRORS)
    answers = {status: kinds for status, kinds in form.answers.items() if status != 303}
    return replace(form, answers={200: (HTML, JSON), 422: (HTML,), **answers})


OPERATIONS: Mapping[str, Operation] = {
    "GET /": Operation("Leads to the alerts.", {303: ()}),
    "GET /alerts": _page("The incidents, the newest first.", query=_FILTER),
    "GET /alerts/list": _page("The incidents alone.", query=_FILTER),
    "GET /alerts/{alert_id}": _page("An alert.", 404),
    "GET /cameras/{camera}": _page("A camera.", 404),
    "GET /cameras/{camera}/images": _page(
        "The images of a day of a camera.", 404, 503, query={"from": _MINUTE}
    ),
    "GET /cameras/{camera}/images/{stem}": _page("An image without an alert.", 404),
    "GET /cameras/{camera}/proposals": _page(
        "What would silence the false alerts of a camera.", *_CHANGE_ERRORS
    ),
    "POST /cameras/{camera}/proposals": _form(
        "Changes the rules by a proposal.",
        {"token": _TOKEN, "proposal": _TEXT, "sha256": _TEXT},
        *_CHANGE_ERRORS,
        role=ADMIN,
    ),
    "GET /cameras/{camera}/zones": _page(
        "The zones and masks of a camera, to be drawn on its image.",
        *(404, 503),
        query={
            **dict.fromkeys(("zones", "mask"), _TEXT),
            "new": {"enum": ["zones", "mask"]},
            "at": _STEM,
            "said": _TEXT,
        },
    ),
    "POST /cameras/{camera}/zones": _form(
        "Writes a zone or mask into the rule file, or removes one.",
        {"token": _TOKEN, **_AREA, "do": _TEXT, "expected": _TEXT, "why": _TEXT},
        *_CHANGE_ERRORS,
        role=ADMIN,
    ),
    "POST /cameras/{camera}/zones/try": _tried(
        "Says what a zone or mask would have changed.", {"token": _TOKEN, **_AREA}
    ),
    "GET /rules/changes": _page("The changes of the rule file.", 503, role=ADMIN),
    "GET /rules/changes/{name}": _page("A version from before.", 404, 503, role=ADMIN),
    "POST /rules/restore": _form(
        "Puts a version from before back.",
        {"token": _TOKEN, "version": _TEXT, "sha256": _TEXT, "camera": _CAMERA},
        *_CHANGE_ERRORS,
        role=ADMIN,
    ),
    "GET /images/{camera}/{stem}": Operation(
        "The picture of an image.",
        {200: (JPEG,), 304: (), 404: (SVG,), 503: (SVG,)},
        query={"size": {"enum": ["card", "full"]}},
    ),
    "GET /fleet": _page("The cameras."),
    "GET /fleet/chart.svg": Operation("The chart of the counts.", {200: (SVG,), 404: (SVG,)}),
    "GET /health": _page("The findings."),
    "GET /shadow": _page(
        "Where alerts of the rules and of the shadow rules differ.",
        query={"camera": _CAMERA, "version": _TEXT, "from": _TEXT},
    ),
    "GET /audit": _page("Who did what.", 503, role=ADMIN),
    "POST /marks": _mark_form(
        "Marks an alert, or a threat that was missed.",
        {
            "token": _TOKEN,
            "say": {
                "type": "string",
                "description": "The mark, or the mark, the camera and the alert with spaces "
                "between them.",
            },
            "camera": _CAMERA,
            "what": {"type": "string", "description": "The alert, or the name of an image."},
            "label": _TEXT,
            "bbox": {"type": "string", "description": "0.1,0.2,0.05,0.3"},
            "note": _TEXT,
            "next": {"type": "string", "description": "The page to go to."},
        },
    ),
    "POST /api/marks": Operation(
        "Marks by a program with a token.",
        {201: (JSON,), **dict.fromkeys((400, 401, 413, 415, 429, 500, 503), (JSON,))},
        role=None,
        json=_MARK,
        schemas={201: _SAVED, **dict.fromkeys((400, 401, 413, 415, 429, 500, 503), _ERROR)},
        has_token=True,
    ),
    "GET /m/{token}": _page(
        "The page of a link that marks: it asks once more.", *(403, 404, 410), role=None
    ),
    "POST /m/{token}": Operation(
        "Marks by a link.",
        {303: (), **dict.fromkeys((403, 404, 410, 500, 503), (HTML,))},
        role=None,
    ),
    "GET /live": Operation(
        "The news, as server-sent events.", {200: ("text/event-stream",), 429: (TEXT,)}
    ),
    "GET /login": Operation(
        "The form of the log-in.", {200: (HTML,), 303: ()}, role=None, query={"next": _TEXT}
    ),
    "POST /login": _form(
        "Logs in.", {"name": _TEXT, "password": _TEXT, "next": _TEXT}, 429, role=None
    ),
    "POST /logout": _form("Logs out.", {"token": _TOKEN}, role=VIEWER),
    "GET /healthz": Operation("Whether the console runs.", {200: (TEXT,)}, role=None),
    "GET /readyz": Operation(
        "Whether the output was read.", {200: (TEXT,), 503: (TEXT,)}, role=None
    ),
    "GET /metrics": Operation("Numbers for Prometheus.", {200: (TEXT,)}, role=None),
    "GET /openapi.json": Operation("This description.", {200: (JSON,)}, role=None),
    "GET /static/{name}": Operation(
        "A style sheet, a script or a drawing of the pages.",
        {200: ("text/css", "text/javascript", SVG), 304: (), 404: (TEXT,)},
        role=None,
    ),
}


@cache
def document() -> bytes:
    """Returns the description as JSON."""
    paths: dict[str, Json] = {}
    for name, operation in OPERATIONS.items():
        method, _, path = name.partition(" ")
        paths.setdefault(path, {})[method.lower()] = _described(path, operation)
    value = {
        "openapi": "3.1.0",
        "info": {"title": "The console of beam-threats", "version": "1.0"},
        "paths": paths,
        "components": {
            "securitySchemes": {
                "session": {"type": "apiKey", "in": "cookie", "name": COOKIE},
                "token": {"type": "http", "scheme": "bearer"},
            }
        },
    }
    return orjson.dumps(value, option=orjson.OPT_INDENT_2)


def show(console: Console, request: Request) -> Response:
    """Serves the description."""
    return Response(document(), media_type=JSON)


def _described(path: str, operation: Operation) -> Json:
    described: Json = {
        "summary": operation.summary,
        "parameters": list(_parameters(path, operation)),
        "responses": {
            str(status): _answer(status, kinds, operation)
            for status, kinds in sorted(_all_answers(path, operation).items())
        },
    }
    if operation.role is not None:
        described["security"] = [{"session": []}]
        described["x-role"] = operation.role
    elif operation.has_token:
        described["security"] = [{"token": []}]
    if operation.form is not None:
        schema = {"type": "object", "properties": dict(operation.form)}
        described["requestBody"] = {
            "content": {"application/x-www-form-urlencoded": {"schema": schema}}
        }
    if operation.json is not None:
        described["requestBody"] = {"content": {JSON: {"schema": operation.json}}}
    return described


def _parameters(path: str, operation: Operation) -> Iterator[Json]:
    for name in re.findall(r"\{(\w+)\}", path):
        yield {"name": name, "in": "path", "required": True, "schema": _PATH[name]}
    for place, schemas in (("query", operation.query), ("header", operation.headers)):
        for name, schema in schemas.items():
            yield {"name": name, "in": place, "schema": schema}


def _all_answers(path: str, operation: Operation) -> Mapping[int, tuple[str, ...]]:
    """Returns the media types of each status, with those by which `Guard` refuses."""
    answers = {status: list(kinds) for status, kinds in operation.answers.items()}
    refused = [421]
    if operation.role is not None:
        answers.setdefault(303, [])
        refused += [401] if operation.role == VIEWER else [401, 403]
    if "{" in path:  # A parameter that is empty, or has a slash, makes it another address.
        answers.setdefault(404, []).append(HTML)
        refused.append(401)
    for status in refused:
        answers.setdefault(status, []).append(TEXT)
    return {status: tuple(dict.fromkeys(kinds)) for status, kinds in answers.items()}


def _answer(status: int, kinds: tuple[str, ...], operation: Operation) -> Json:
    content = {}
    for kind in kinds:
        schema = operation.schemas.get(status) if kind == JSON else None
        content[kind] = {} if schema is None else {"schema": schema}
    return {"description": _TEXTS[status], **({"content": content} if content else {})}
