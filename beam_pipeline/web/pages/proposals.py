"""What would silence the false alerts of a camera, applied by an admin, and undone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

import rules
from beam_pipeline.evaluation.proposing import Proposal
from beam_pipeline.web.access.users import ADMIN, Person
from beam_pipeline.web.output.pictures import why_unreadable
from beam_pipeline.web.output.proposing import DAYS, BusyError, Found, digest_of
from beam_pipeline.web.output.rule_changes import (
    BrokenRulesError,
    ChangeRefusedError,
    HistoryError,
    KeptVersion,
    RuleFile,
    RuleText,
    UnwritableError,
    time_of,
)
from beam_pipeline.web.pages.console import Console, known_camera
from beam_pipeline.web.pages.forms import FormError, check_token, read_form
from rules.local_times import local_words
from transforms.records.times import parse_time

_WAIT_SECONDS = 10.0
"""For proposals: then the page says that it is not there yet."""
_STORE_SECONDS = 30.0
_SHOWN = 8
"""Pictures of each kind for a proposal."""
_VERSIONS = 20
_NO_RULES = "Start the console with --rules FILE, the rule file of the job."
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Picture:
    """An image that a proposal concerns.

    Attributes:
      stem: Its name.
      when: Its capture time in words.
    """

    stem: str
    when: str


@dataclass(frozen=True)
class Shown:
    """A proposal as the page shows it.

    Attributes:
      proposal: The proposal.
      digest: What a form names it by.
      diff: What it changes in the rule file.
      pictures: The images that it concerns: what becomes of them, how many there are, and some.
    """

    proposal: Proposal
    digest: str
    diff: str
    pictures: tuple[tuple[str, int, tuple[Picture, ...]], ...]


async def proposals_page(console: Console, request: Request) -> Response:
    """Shows what would have silenced the alerts of a camera that are marked false."""
    camera = await _in_thread(known_camera, console, request)
    rule_file = console.rule_file
    if rule_file is None:
        return console.render(request, "proposals", camera=camera, problem=_NO_RULES)
    try:
        found = await _found(console, camera)
        kept = await _last_change(console, request)
    except BrokenRulesError as error:
        return console.render(request, "proposals", status=409, camera=camera, problem=str(error))
    except (OSError, asyncio.TimeoutError) as error:
        return console.render(
            request,
            "proposals",
            status=503,
            camera=camera,
            problem=f"The archive can't be read now ({why_unreadable(error)}). Try again.",
        )
    person: Person = request.state.person
    return console.render(
        request,
        "proposals",
        camera=camera,
        problem=None,
        found=found,
        shown=() if found is None else tuple(_shown(console, found)),
        days=DAYS,
        may_apply=person.may(ADMIN),
        kept=kept,
        kept_when=None if kept is None else f"{kept.at:%Y-%m-%d %H:%M} UTC",
        sha256=None if found is None else found.state.text.sha256,
    )


async def apply_proposal(console: Console, request: Request) -> Response:
    """Changes the rule file by a proposal."""
    form = await read_form(request)
    check_token(console.guarded, request, form)
    camera = await _in_thread(known_camera, console, request)
    rule_file = _rule_file(console)
    person: Person = request.state.person
    try:
        found = await _found(console, camera)
    except BrokenRulesError as error:
        raise FormError(409, f"Nothing was written: {error}") from None
    except (OSError, asyncio.TimeoutError) as error:
        raise FormError(503, f"Nothing was written: {why_unreadable(error)}. Try again.") from None
    proposal = None if found is None else found.proposal(form.get("proposal", ""))
    if proposal is None:
        raise FormError(
            409,
            "This is not proposed any more, as the rules, the marks or the alerts have changed. "
            "Nothing was written. Look at the proposals again.",
        )
    effect = proposal.effect
    why = (
        f"marks of {camera}: {len(effect.false_gone)} of {effect.false} false alerts gone, "
        f"{effect.right - len(effect.right_lost)} of {effect.right} right ones kept"
    )
    return await _changed(
        console,
        request,
        f"/cameras/{camera}/proposals",
        lambda: rule_file.change(
            proposal.changes,
            expected=form.get("sha256", ""),
            by=person.name,
            role=person.role,
            why=why,
        ),
    )


async def changes_page(console: Console, request: Request) -> Response:
    """Lists the changes of the rule file through the console."""
    rule_file = console.rule_file
    if rule_file is None:
        return console.render(request, "rule_changes", here="Audit", problem=_NO_RULES)
    try:
        text, versions = await _in_store(console, _text_and_versions, rule_file)
    except (OSError, asyncio.TimeoutError) as error:
        raise FormError(503, f"The history can't be read now ({why_unreadable(error)}).") from None
    return console.render(
        request,
        "rule_changes",
        here="Audit",
        problem=None,
        name=rule_file.path.rpartition("/")[2],
        text=text,
        versions=versions,
        undoable=None if text is None else rule_file.undoable(text, versions),
        number=_VERSIONS,
    )


async def version_page(console: Console, request: Request) -> Response:
    """Shows a version from before, and what would change if it were put back."""
    rule_file, name = _rule_file(console), request.path_params["name"]
    try:
        text = await _in_store(console, rule_file.read)
        kept = await _in_store(console, rule_file.kept_text, name)
        # Of large files that differ much, the difference takes seconds.
        diff = await _in_store(console, rule_file.difference, text.text, kept)
    except (HistoryError, asyncio.TimeoutError) as error:
        raise FormError(503, f"The history can't be read now ({error}).") from None
    except BrokenRulesError as error:
        raise FormError(404, str(error)) from None
    return console.render(
        request,
        "rule_version",
        here="Audit",
        name=name,
        replaced=f"{time_of(name):%Y-%m-%d %H:%M:%S}",
        text=text,
        diff=diff,
        kept=kept,
    )


async def restore_rules(console: Console, request: Request) -> Response:
    """Puts a version from before back."""
    form = await read_form(request)
    check_token(console.guarded, request, form)
    rule_file, person = _rule_file(console), request.state.person
    camera = form.get("camera", "")
    back = f"/cameras/{camera}/proposals" if rules.is_camera_id(camera) else "/rules/changes"
    return await _changed(
        console,
        request,
        back,
        lambda: rule_file.restore(
            form.get("version", ""),
            expected=form.get("sha256", ""),
            by=person.name,
            role=person.role,
        ),
    )


async def _changed(
    console: Console, request: Request, back: str, change: Callable[[], RuleText]
) -> Response:
    """Changes the rule file; returns what a browser gets.

    Raises:
      FormError: It was not changed.
    """

    def work() -> None:
        change()
        console.rules_file.look()

    try:
        await _in_store(console, work)
    except UnwritableError as error:
        return console.render(
            request, "rule_diff", status=409, text=str(error), diff=error.diff, back=back
        )
    except HistoryError as error:
        raise FormError(503, str(error)) from None
    except ChangeRefusedError as error:
        raise FormError(409, str(error)) from None
    except asyncio.TimeoutError:
        raise FormError(
            503,
            f"The store has not answered for {_STORE_SECONDS:.0f} seconds. The rules may still be "
            "changed: look at the changes of the rules before you try again.",
        ) from None
    console.follower.changed()
    return RedirectResponse(back, 303)


def _rule_file(console: Console) -> RuleFile:
    if console.rule_file is None:
        raise FormError(404, _NO_RULES)
    return console.rule_file


async def _found(console: Console, camera: str) -> Found | None:
    """Returns what is proposed for a camera; None if it takes longer than a page waits.

    Raises:
      BrokenRulesError: The rule file can't be used.
      FormError: Too much is being looked for.
      OSError: The store can't be read.
    """
    assert console.proposals is not None
    state = await _in_thread(console.proposals.state, camera)
    try:
        future = console.proposals.begin(state)
    except BusyError:
        raise FormError(
            503, "Proposals for several cameras are being looked for. Try again in a minute."
        ) from None
    done, _ = await asyncio.wait([asyncio.wrap_future(future)], timeout=_WAIT_SECONDS)
    return future.result() if done else None


async def _last_change(console: Console, request: Request) -> KeptVersion | None:
    """Returns the version before the last change, if the person may undo that."""
    person: Person = request.state.person
    if not person.may(ADMIN):
        return None
    rule_file = _rule_file(console)
    text, versions = await _in_store(console, _text_and_versions, rule_file)
    return None if text is None else rule_file.undoable(text, versions)


def _text_and_versions(rule_file: RuleFile) -> tuple[RuleText | None, list[KeptVersion]]:
    """Returns what the file says, or None if it is broken, and the versions from before."""
    try:
        text = rule_file.read()
    except BrokenRulesError:
        text = None
    return text, rule_file.versions(_VERSIONS)


async def _in_store(console: Console, work: Callable[..., _Answer], *given: Any) -> _Answer:
    """Does something with the store, which may hang, in a thread.

    Raises:
      asyncio.TimeoutError: It takes too long, and goes on.
    """
    loop = asyncio.get_running_loop()
    doing = loop.run_in_executor(console.mark_threads, work, *given)
    return await asyncio.wait_for(asyncio.shield(doing), _STORE_SECONDS)


async def _in_thread(work: Callable[..., _Answer], *given: Any) -> _Answer:
    return await asyncio.to_thread(work, *given)


def _shown(console: Console, found: Found) -> Iterator[Shown]:
    ruleset = console.rules_file.ruleset
    zone = "UTC" if ruleset is None else ruleset.timezone_of(found.state.camera)

    def pictures(times: tuple[str, ...]) -> tuple[Picture, ...]:
        newest = sorted(times, key=parse_time, reverse=True)[:_SHOWN]
        return tuple(
            Picture(found.stems[time], local_words(parse_time(time), zone)) for time in newest
        )

    for proposal, diff in zip(found.findings.proposals, found.diffs, strict=True):
        effect = proposal.effect
        concerned = (
            ("Right alerts that would be lost", effect.right_lost),
            ("False alerts that would be gone", effect.false_gone),
            ("Unmarked alerts that would be gone", effect.others_lost),
            ("Alerts that would be new", effect.gained),
        )
        yield Shown(
            proposal,
            digest_of(proposal),
            diff,
            tuple((words, len(times), pictures(times)) for words, times in concerned if times),
        )
