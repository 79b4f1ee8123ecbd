"""The routes of the console."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any
from urllib.parse import urlencode

from markupsafe import Markup
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route

import rules
from beam_pipeline.console.exceptions import CommandError
from beam_pipeline.fleet import chart
from beam_pipeline.fleet.marking import Said, parse_box, words
from beam_pipeline.pages import parts
from beam_pipeline.pages.report.page import svg_with_dark_mode
from beam_pipeline.web.access.guarding import COOKIE, SESSION_SECONDS, Access, Guard
from beam_pipeline.web.access.users import OPERATOR, Person
from beam_pipeline.web.output import audit
from beam_pipeline.web.output.index import UNMARKED, IncidentFilter
from beam_pipeline.web.output.pictures import (
    SIZES,
    NoPictureError,
    stored_image,
    why_unreadable,
)
from beam_pipeline.web.pages import api, mark_links, openapi, proposals, shadow, views, zones
from beam_pipeline.web.pages.console import REPORT, WEB, Console, known_camera
from beam_pipeline.web.pages.forms import FormError, check_token, read_form
from beam_pipeline.web.pages.marking import LONGEST_WAIT_SECONDS, save_mark
from rules.text import escaped
from transforms.storage.marks import MARKS, is_alert_id

_LOGGER = logging.getLogger(__name__)

_STREAMS_OF_ONE = 100
_AUDIT_SHOWN = 200
_PROBLEMS_SHOWN = 50
_NO_PICTURE = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="480" height="360" viewBox="0 0 480 360">'
    '<rect width="480" height="360" fill="#8886"/><text x="240" y="186" text-anchor="middle" '
    'font-family="system-ui, sans-serif" font-size="20" fill="#777">No picture</text></svg>'
)


def make_app(console: Console, access: Access, stopped: threading.Event) -> Guard:
    """Returns the application, with the guard in front of it.

    Args:
      console: What the routes share.
      access: Who may come in.
      stopped: Ends the threads that follow the output.
    """

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        console.live.attach()
        for work in (console.follower.run, console.fleet.run, console.fleet.run_pictures):
            threading.Thread(target=work, args=(stopped,), daemon=True).start()
        yield
        stopped.set()

    def route(path: str, answer: Callable[..., Any], method: str = "GET") -> Route:
        if asyncio.iscoroutinefunction(answer):

            async def endpoint(request: Request) -> Response:
                return await answer(console, request)  # type: ignore[no-any-return]

            return Route(path, endpoint, methods=[method])

        def in_thread(request: Request) -> Response:
            return answer(console, request)  # type: ignore[no-any-return]

        return Route(path, in_thread, methods=[method])

    app = Starlette(
        routes=[
            route("/", _home),
            route("/alerts", _alerts),
            route("/alerts/list", _alert_list),
            route("/alerts/{alert_id}", _alert),
            route("/cameras/{camera}", _camera),
            route("/cameras/{camera}/images", _images),
            route("/cameras/{camera}/images/{stem}", _image_page),
            route("/cameras/{camera}/proposals", proposals.proposals_page),
            route("/cameras/{camera}/proposals", proposals.apply_proposal, "POST"),
            route("/rules/changes", proposals.changes_page),
            route("/rules/changes/{name}", proposals.version_page),
            route("/rules/restore", proposals.restore_rules, "POST"),
            route("/cameras/{camera}/zones", zones.zones_page),
            route("/cameras/{camera}/zones", zones.save_area, "POST"),
            route("/cameras/{camera}/zones/try", zones.try_area, "POST"),
            route("/images/{camera}/{stem}", _image),
            route("/fleet", _fleet),
            route("/fleet/chart.svg", _chart),
            route("/health", _health),
            route("/shadow", shadow.shadow_page),
            route("/audit", _audit),
            route("/marks", _mark, "POST"),
            route("/api/marks", api.post_mark, "POST"),
            route("/m/{token}", mark_links.show),
            route("/m/{token}", mark_links.use, "POST"),
            route("/live", _live),
            route("/login", _login_page),
            route("/login", _login, "POST"),
            route("/logout", _logout, "POST"),
            route("/healthz", _healthz),
            route("/readyz", _readyz),
            route("/metrics", _metrics),
            route("/openapi.json", openapi.show),
            route("/static/{name}", _static),
        ],
        lifespan=lifespan,
        exception_handlers={
            HTTPException: lambda request, error: _http_error(console, request, error),
            FormError: lambda request, error: _form_error(console, request, error),
            Exception: lambda request, error: _mistake(console, request, error),
        },
    )
    app.router.redirect_slashes = False  # An address that is not in the table is none.
    console.guard = Guard(app, access)
    return console.guard


# Alerts


def _home(console: Console, request: Request) -> Response:
    return RedirectResponse("/alerts", 303)


def _chosen(request: Request) -> tuple[IncidentFilter, Any]:
    """Reads which incidents an address asks for. What no incident can be is left out."""
    query = request.query_params
    given = {name: query.get(name, "").strip() or None for name in ("camera", "label", "severity")}
    mark = query.get("mark")
    times = [views.utc_minutes(query.get(name)) for name in ("since", "until")]
    since, until = (None if time is None else time.timestamp() for time in times)
    chosen = IncidentFilter(
        **given, mark=mark if mark in (*MARKS, UNMARKED) else None, since=since, until=until
    )
    last, _, id = query.get("before", "").partition("_")
    try:
        before = (float(last), id) if is_alert_id(id) else None
    except ValueError:
        before = None
    return chosen, before


def _alerts(console: Console, request: Request) -> Response:
    chosen, before = _chosen(request)
    person: Person = request.state.person
    html, page = console.list_of(chosen, before, person.may(OPERATOR))
    query = {name: value for name, value in request.query_params.items() if name != "before"}
    problems = []
    for name in ("since", "until"):
        if query.get(name) and views.utc_minutes(query[name]) is None:
            problems.append(f"{query[name][:40]} is no time such as 2026-01-31T18:00.")
    older = None
    if page.older is not None:
        older = f"/alerts?{urlencode({**query, 'before': f'{page.older[0]!r}_{page.older[1]}'})}"
    return console.render(
        request,
        "alerts",
        here="Alerts",
        list=Markup(html),
        incidents=page.incidents,
        chosen=chosen,
        is_chosen=chosen != IncidentFilter(),
        cameras=console.index.cameras(),
        labels=console.index.labels(),
        since=query.get("since", ""),
        until=query.get("until", ""),
        problems=problems,
        is_later_page=before is not None,
        newest=f"/alerts?{urlencode(query)}",
        older=older,
    )


def _alert_list(console: Console, request: Request) -> Response:
    chosen, before = _chosen(request)
    person: Person = request.state.person
    return HTMLResponse(console.list_of(chosen, before, person.may(OPERATOR))[0])


def _alert(console: Console, request: Request) -> Response:
    alert_id = request.path_params["alert_id"]
    values = None
    if is_alert_id(alert_id):
        values = views.alert_values(console.output, console.index, alert_id)
    if values is None:
        return console.error(
            request, 404, "There is no such alert", "It is not in the output, or not read yet."
        )
    return console.render(
        request, "image", here="Alerts", labels=console.rules_file.labels, said=None, **values
    )


# Cameras


def _camera(console: Console, request: Request) -> Response:
    camera = known_camera(console, request)
    ruleset = console.rules_file.ruleset
    return console.render(
        request,
        "camera",
        rules=None if ruleset is None else rules.describe_camera(ruleset, camera),
        **views.camera_values(console.output, console.index, console.fleet.view, camera),
    )


def _images(console: Console, request: Request) -> Response:
    camera = known_camera(console, request)
    begins = views.utc_minutes(request.query_params.get("from"))
    if begins is None:
        newest = views.camera_values(console.output, console.index, console.fleet.view, camera)[
            "newest"
        ]
        if newest is None:
            return console.error(
                request,
                404,
                f"No image of {camera} is known",
                "Give a time: ?from=2026-01-31T18:00",
            )
        begins = newest.capture_time.replace(hour=0, minute=0, second=0, microsecond=0)
    try:
        values = views.images_values(console.output, camera, begins)
    except OSError as error:
        return console.error(
            request, 503, "The images can't be listed now", f"{why_unreadable(error)}. Try again."
        )
    return console.render(request, "images", **values)


def _image_page(console: Console, request: Request) -> Response:
    camera, stem = request.path_params["camera"], request.path_params["stem"]
    image = stored_image(camera, stem)
    if image is None:
        raise HTTPException(404, "There is no such image")
    alert_id = views.alert_of_image(console.index, image)
    if alert_id is not None:
        return RedirectResponse(f"/alerts/{alert_id}", 303)
    ruleset = console.rules_file.ruleset
    zone = "UTC" if ruleset is None else ruleset.timezone_of(camera)
    values = views.image_values(console.output, console.index, image, zone)
    return console.render(request, "image", labels=console.rules_file.labels, said=None, **values)


async def _image(console: Console, request: Request) -> Response:
    image = stored_image(request.path_params["camera"], request.path_params["stem"])
    size = request.query_params.get("size", "card")
    if image is None or size not in SIZES:
        return _no_picture(404)
    loop = asyncio.get_running_loop()
    try:
        jpeg = await asyncio.wait_for(
            loop.run_in_executor(console.picture_threads, console.pictures.jpeg, image, size),
            LONGEST_WAIT_SECONDS,
        )
    except NoPictureError:
        return _no_picture(404)
    except (OSError, asyncio.TimeoutError):
        return _no_picture(503)
    tag = f'"{hashlib.sha256(jpeg).hexdigest()[:32]}"'
    headers = {"Cache-Control": "private, max-age=600", "ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(jpeg, media_type="image/jpeg", headers=headers)


def _no_picture(status: int) -> Response:
    return Response(_NO_PICTURE, status, media_type="image/svg+xml")


# The fleet


def _fleet(console: Console, request: Request) -> Response:
    return console.render(request, "fleet", here="Fleet", **views.fleet_values(console.fleet.view))


def _health(console: Console, request: Request) -> Response:
    return console.render(
        request,
        "health",
        here="Health",
        problems=console.index.problems(_PROBLEMS_SHOWN),
        **views.fleet_values(console.fleet.view),
    )


def _chart(console: Console, request: Request) -> Response:
    view = console.fleet.view
    if view.fleet is None or view.fleet.period is None or view.at is None:
        return _no_picture(404)
    with console.charts_lock:  # Matplotlib draws one chart at a time.
        if view.at not in console.charts:
            period = view.fleet.period
            model = chart.period_model(view.fleet.rows, period.start, period.end)
            console.charts = {view.at: svg_with_dark_mode(model)}
        svg = console.charts[view.at]
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return Response(svg, media_type="image/svg+xml", headers={"Content-Security-Policy": policy})


# Marks


def _said(form: Mapping[str, str], by: str) -> tuple[Said, str]:
    """Returns what a person says by a form, and of which camera.

    Raises:
      CommandError: The box is none.
      FormError: Something is missing.
    """
    # The buttons of a card hold all in one value.
    mark, _, about = form.get("say", "").partition(" ")
    camera, _, what = about.partition(" ") if about else (form.get("camera", ""), "", "")
    what = what or form.get("what", "")
    if mark not in MARKS or not rules.is_camera_id(camera) or not what:
        raise FormError(400, "The form does not say which alert is marked, and as what.")
    box = form.get("bbox", "").strip()
    said = Said(
        what=what,
        mark=mark,
        by=by,
        label=form.get("label", "").strip() or None,
        bboxes=(parse_box(box),) if box else (),
        note=form.get("note", "").replace("\r\n", "\n").strip(),
    )
    return said, camera


async def _mark(console: Console, request: Request) -> Response:
    form = await read_form(request)
    check_token(console.guarded, request, form)
    person: Person = request.state.person
    try:
        said, camera = _said(form, person.name)
    except CommandError as error:
        raise FormError(400, f"The mark was not saved: {error}") from None
    mark = await save_mark(console, said, camera, person.role)
    if "x-console" in request.headers:
        return JSONResponse({"said": f"Saved. {mark.id}: {words(mark)}"})
    return RedirectResponse(_local(form.get("next")), 303)


def _local(address: str | None) -> str:
    """Returns an address to go to, if it is a page of this console."""
    fits = address and address.startswith("/") and address.isprintable() and address.isascii()
    if not address or not fits or address.startswith("//") or "\\" in address:
        return "/alerts"
    return address


# Live


async def _live(console: Console, request: Request) -> Response:
    person: Person = request.state.person
    live, guard = console.live, console.guarded
    has_log_in = guard.access.local is None
    if has_log_in and live.of_person[person.name] >= _STREAMS_OF_ONE:
        return PlainTextResponse("You have too many pages open. Close some.", 429)

    async def events() -> AsyncIterator[str]:
        live.clients += 1
        live.of_person[person.name] += 1
        try:
            yield "retry: 3000\n\n"
            # Who is removed, or has logged out, learns no more.
            while (now := guard.person(request)) is not None and now.name == person.name:
                change = live.next_change
                state = {
                    "version": console.follower.status.version,
                    "stale": console.stale(),
                }
                yield f"event: state\ndata: {json.dumps(state)}\n\n"
                await live.wait(change)
        finally:
            live.clients -= 1
            live.of_person[person.name] -= 1
            if not live.of_person[person.name]:
                del live.of_person[person.name]

    return StreamingResponse(
        events(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
    )


# People


def _login_page(console: Console, request: Request) -> Response:
    if console.guarded.access.users is None or request.state.person is not None:
        return RedirectResponse("/alerts", 303)
    address = _local(request.query_params.get("next"))
    return console.render(request, "login", next=address, name="", problem=None)


async def _login(console: Console, request: Request) -> Response:
    guard = console.guarded
    users = guard.access.users
    form = await read_form(request)
    if users is None or guard.is_forged(request, None):
        raise FormError(403, "The form was not sent from a page of this console.")
    name, password = form.get("name", "")[:100], form.get("password", "")[:1000]
    client = guard.client(request)

    def again(status: int, problem: str) -> Response:
        return console.render(
            request, "login", status=status, next=_local(form.get("next")), name=name,
            problem=problem,
        )  # fmt: skip

    wait = guard.failures.wait_seconds(client, name)
    if wait:
        answer = again(429, f"Too many wrong passwords. Try again in {-(-wait // 60)} minutes.")
        answer.headers["Retry-After"] = str(wait)
        return answer
    # Noted before it is tried, so that many tries at once count too.
    guard.failures.note_failure(client, name)
    right = await asyncio.to_thread(users.check, name, password)
    if right is None:
        # People type passwords in the wrong field, so only the name of a user is logged.
        of = f"for the user {escaped(name)}" if users.person(name) else "for a name of no user"
        _LOGGER.warning("a wrong password %s came from %s", of, client or "an unknown address")
        return again(403, "The name or the password is wrong.")
    guard.failures.note_success(client, name)
    answer = RedirectResponse(_local(form.get("next")), 303)
    answer.set_cookie(
        COOKIE,
        guard.sessions.begin(name, right),
        max_age=SESSION_SECONDS,
        httponly=True,
        samesite="lax",
        secure=guard.is_https(request),
    )
    return answer


async def _logout(console: Console, request: Request) -> Response:
    check_token(console.guarded, request, await read_form(request))
    console.guarded.sessions.end(request.cookies.get(COOKIE, ""))
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE)
    return answer


def _audit(console: Console, request: Request) -> Response:
    try:
        entries = audit.read_entries(console.output, _AUDIT_SHOWN)
    except OSError as error:
        return console.error(
            request, 503, "The entries can't be read now", f"{why_unreadable(error)}. Try again."
        )
    return console.render(request, "audit", here="Audit", entries=entries, number=_AUDIT_SHOWN)


# Machines


def _healthz(console: Console, request: Request) -> Response:
    return PlainTextResponse("ok\n")


def _readyz(console: Console, request: Request) -> Response:
    if not console.follower.has_read:
        return PlainTextResponse("the output has not been read yet\n", 503)
    if console.follower.stale_since() is not None:
        return PlainTextResponse("the store does not answer\n", 503)
    return PlainTextResponse("ok\n")


def _metrics(console: Console, request: Request) -> Response:
    status, numbers = console.follower.status, console.numbers()
    last = 0.0 if status.last_success is None else status.last_success.timestamp()
    values: list[tuple[str, str, str, float]] = [
        ("alerts", "gauge", "Alerts in the index.", numbers["alerts"]),
        ("incidents", "gauge", "Incidents in the index.", numbers["incidents"]),
        ("marks", "gauge", "Marks in the index.", numbers["marks"]),
        ("unreadable_files", "gauge", "Files that could not be read.", numbers["problems"]),
        ("files_left", "gauge", "Files that are still to be read.", status.left),
        ("last_success_timestamp_seconds", "gauge", "When the output was last read.", last),
        ("look_seconds", "gauge", "How long the last look at the output took.", status.seconds),
        ("looks_total", "counter", "Looks at the output.", status.looks),
        ("failed_looks_total", "counter", "Looks at the output that failed.", status.failures),
        ("marks_written_total", "counter", "Marks that were written here.", console.marks),
        ("live_clients", "gauge", "Open pages that wait for changes.", console.live.clients),
    ]
    lines = []
    for name, kind, text, value in values:
        full = f"beam_console_{name}"
        lines += [f"# HELP {full} {text}", f"# TYPE {full} {kind}", f"{full} {value:.10g}"]
    full = "beam_console_answers_total"
    lines += [f"# HELP {full} Answers by their status.", f"# TYPE {full} counter"]
    answers = sorted(console.guarded.answers.items())
    lines += [f'{full}{{status="{code}"}} {number}' for code, number in answers]
    return PlainTextResponse(
        "\n".join([*lines, ""]), media_type="text/plain; version=0.0.4; charset=utf-8"
    )


def _file(package: str, name: str) -> bytes:
    return resources.files(package).joinpath(name).read_bytes()


_STATIC: Mapping[str, tuple[str, Callable[[], bytes]]] = {
    "console.css": (
        "text/css",
        lambda: parts.style((REPORT, "page.css"), (WEB, "static/console.css")).encode(),
    ),
    "console.js": ("text/javascript", lambda: _file(WEB, "static/console.js")),
    "zones.js": ("text/javascript", lambda: _file(WEB, "static/zones.js")),
    "report.js": ("text/javascript", lambda: _file(REPORT, "page.js")),
    "icon.svg": ("image/svg+xml", lambda: _file(WEB, "static/icon.svg")),
    "deleted.svg": ("image/svg+xml", lambda: _file(WEB, "static/deleted.svg")),
}


def _static(console: Console, request: Request) -> Response:
    kind, read = _STATIC.get(request.path_params["name"], (None, None))
    if kind is None or read is None:
        return PlainTextResponse("There is no such file.", 404)
    data = read()
    tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    headers = {"Cache-Control": "no-cache", "ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=kind, headers=headers)


# Errors


def _http_error(console: Console, request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    title = "There is no such page" if error.detail == "Not Found" else error.detail
    return console.error(request, error.status_code, title, "Check the address.")


def _mistake(console: Console, request: Request, error: Exception) -> Response:
    _LOGGER.error("%s %s failed", request.method, request.scope["path"], exc_info=error)
    return PlainTextResponse("The console has made a mistake; its log says which.", 500)


def _form_error(console: Console, request: Request, error: Exception) -> Response:
    assert isinstance(error, FormError)
    if "x-console" in request.headers:
        return JSONResponse({"said": str(error)}, error.status)
    return console.error(request, error.status, "That did not work", str(error))
