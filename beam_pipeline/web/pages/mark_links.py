"""The pages of the links in messages that mark an alert without a log-in.

Opening a link marks nothing, however it is opened: mail scanners and previews open links too. The
page asks once more, and its button marks.
"""

from __future__ import annotations

import os
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

import rules
from beam_pipeline.fleet.marking import Said
from beam_pipeline.pages.report.page import labels_text
from beam_pipeline.web.pages.console import Console
from beam_pipeline.web.pages.forms import FormError
from beam_pipeline.web.pages.marking import save_mark
from rules.local_times import local_words
from transforms.alerting.mark_links import LinkKeyError, MarkLink, link_keys, verified
from transforms.records.times import from_unix
from transforms.storage.marks import FALSE

LINK = "link"
"""What the audit gives as the role of who has used a link."""


def show(console: Console, request: Request) -> Response:
    """Asks whether the alert is to be marked; says so if it was."""
    link = _link(console, request)
    incident = console.index.incident_of(link.alert_id)
    alerts = () if incident is None else incident.alerts
    record = next((one.record for one in alerts if one.record.alert_id == link.alert_id), None)
    ruleset = console.rules_file.ruleset
    zone = "UTC" if ruleset is None else ruleset.timezone_of(link.camera)
    return console.render(
        request,
        "mark_link",
        link=link,
        is_used=_is_used(console, link),
        when=None if record is None else record.when,
        labels=None if record is None else labels_text(record.labels),
        until=local_words(from_unix(link.until), zone),
        **_onward(console, request, link),
    )


async def use(console: Console, request: Request) -> Response:
    """Marks the alert; a link that was used changes nothing more."""
    link = _link(console, request)
    if console.guarded.is_forged(request, None):
        raise FormError(403, "The form was not sent from the page of the link. Open the link.")
    if not _is_used(console, link):
        said = Said(what=link.alert_id, mark=link.mark, by=link.by)
        try:
            await save_mark(console, said, link.camera, LINK)
        except FormError as error:
            if error.status != 400:
                raise
            raise FormError(
                404,
                "The alert can't be marked: it was deleted, or the message was only a test.",
            ) from None
    return RedirectResponse(request.scope["path"], 303)


def _link(console: Console, request: Request) -> MarkLink:
    """Returns the link of a request, once its signature was checked.

    Raises:
      FormError: It is none that works.
    """
    keys = _keys(console)
    if not keys:
        raise FormError(
            404,
            "This console takes no links: its rule file names no key for them, or the variable "
            "with the key is not set here. Log in, and mark the alert on its page.",
        )
    link = verified(request.path_params["token"], keys)
    if link is None:
        raise FormError(
            403,
            "This link is damaged, or it was signed with another key. Open the link of the message "
            "again, or log in and mark the alert on its page. Nothing was marked.",
        )
    if datetime.now(timezone.utc).timestamp() >= link.until:
        raise FormError(
            410,
            "This link has ended. Log in, and mark the alert on its page. Nothing was marked.",
        )
    return link


def _keys(console: Console) -> tuple[str, ...]:
    """Returns the keys that the rule file names now; none if there are none that can be used."""
    ruleset = console.rules_file.ruleset
    settings = None if ruleset is None else ruleset.alerting.console
    if settings is None or settings.key is None:
        return ()
    try:
        return link_keys(settings.key, os.environ)
    except (rules.MissingVariableError, LinkKeyError):
        return ()


def _is_used(console: Console, link: MarkLink) -> bool:
    """Returns whether the mark that the link makes stands."""
    marks = console.index.marks_of(link.alert_id)
    return any((one.by, one.mark, one.label) == (link.by, link.mark, None) for one in marks)


def _onward(console: Console, request: Request, link: MarkLink) -> dict[str, Any]:
    """Returns where the page leads once the alert is marked."""
    pages = [("See the alert", f"/alerts/{link.alert_id}")]
    if link.mark == FALSE:
        silence = "See what would silence the next one"
        pages.insert(0, (silence, f"/cameras/{link.camera}/proposals"))
    if request.state.person is None:
        has_users = console.guarded.access.users is not None
        text, address = pages[0]
        text = f"Log in and {text[0].lower()}{text[1:]}"
        pages = [(text, f"/login?next={quote(address, safe='')}")] if has_users else []
    return {"onward": pages}
