"""Zones and masks that are drawn on an image of their camera.

The page works without JavaScript too: the corners are numbers in a field then. With it, they are
drawn on the image, and the form is sent with each change to learn what the area would have changed.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any, get_args

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

import rules
from beam_pipeline.evaluation.area_trial import AbandonedError
from beam_pipeline.evaluation.areas import (
    ANCHORS,
    MOST_CORNERS,
    SECTIONS,
    WORDS,
    AreaError,
    DrawnArea,
    Section,
    find_area,
    labels_of,
    labels_of_camera,
    removal,
)
from beam_pipeline.evaluation.mark_facts import facts_of
from beam_pipeline.evaluation.rule_edits import setting_text
from beam_pipeline.web.access.users import ADMIN, OPERATOR, Person
from beam_pipeline.web.output.pictures import (
    NoPictureError,
    StoredImage,
    images_of_day,
    read_record,
    why_unreadable,
)
from beam_pipeline.web.output.rule_changes import (
    BrokenRulesError,
    ChangeRefusedError,
    UnwritableError,
)
from beam_pipeline.web.output.trials import DAYS, MOST_IMAGES, Tried
from beam_pipeline.web.pages import views
from beam_pipeline.web.pages.console import Console, known_camera
from beam_pipeline.web.pages.forms import FormError, check_token, read_form
from rules.effective import Mask, Zone
from rules.geometry import Anchor
from rules.text import number_of

_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d{1,3})?", re.ASCII)
_BETWEEN = re.compile(r"[\s,;\[\]()]+")
_LONGEST_POLYGON = 10_000
_MOST_FIELDS = 300
_LARGE_FILE = 16 << 10
"""To write a larger rule file anew takes seconds, too long while somebody draws."""
_MOST_WAITING = 8
_LONGEST_WAIT_SECONDS = 60.0
_LOOKS_SECONDS = 0.25
_LONGEST_WHY = 500
_SAID = {
    "saved": "Saved. A stream judges by it as soon as it reads the rule file again.",
    "removed": "Removed from the rule file.",
}


@dataclass(frozen=True)
class AreaFields:
    """What a form says of a zone or mask, right or not.

    Attributes:
      section: `zones` or `mask`.
      name: Its name.
      is_new: Whether it is drawn anew.
      corners: Its corners, as numbers in a text.
      anchor: One of `ANCHORS`.
      min_overlap: A number.
      labels: The labels that it is about; None for all.
      days: The period to count.
    """

    section: Section
    name: str
    is_new: bool
    corners: str = ""
    anchor: str = "bottom_center"
    min_overlap: str = "0.5"
    labels: frozenset[str] | None = None
    days: int = 7

    @classmethod
    def of_area(cls, area: Zone | Mask) -> AreaFields:
        """Returns the fields of an area that there is."""
        return cls(
            section="zones" if isinstance(area, Zone) else "mask",
            name=area.name,
            is_new=False,
            corners=corners_text(area.polygon or ()),
            anchor=area.anchor,
            min_overlap=f"{area.min_overlap:g}",
            labels=labels_of(area),
        )

    @classmethod
    def of_form(cls, form: Mapping[str, str]) -> AreaFields:
        """Returns the fields of a form.

        Raises:
          FormError: It is not a form of the page.
        """
        section, anchor, days = form.get("section"), form.get("anchor", ""), form.get("days")
        chosen = next((one for one in DAYS if str(one) == days), None)
        if section not in SECTIONS or anchor not in ANCHORS or chosen is None:
            raise FormError(400, "The form does not say what is drawn, and by which anchor.")
        named = {key.partition(":")[2] for key in form if key.startswith("label:")}
        return cls(
            section="zones" if section == "zones" else "mask",
            name=form.get("name", "").strip(),
            is_new=form.get("is_new") == "1",
            corners=form.get("corners", ""),
            anchor=anchor,
            min_overlap=form.get("min_overlap", "").strip() or "0.5",
            labels=frozenset(named) if form.get("about") == "some" else None,
            days=chosen,
        )

    def drawn(self, camera: str, camera_rules: rules.CameraRules) -> DrawnArea:
        """Returns the area.

        Args:
          camera: The camera.
          camera_rules: Its rules.

        Raises:
          FormError: The corners or the overlap are no numbers, or too many.
          AreaError: There can be no such area.
        """
        word = WORDS[self.section]
        if not _NUMBER.fullmatch(self.min_overlap):
            raise FormError(400, "The minimum overlap is no number such as 0.5.")
        anchor = next(one for one in get_args(Anchor) if one == self.anchor)
        area = DrawnArea(
            camera,
            self.section,
            self.name,
            parse_corners(self.corners),
            anchor,
            float(self.min_overlap) if anchor == "overlap" else 0.5,
            self.labels,
        )
        is_there = find_area(camera_rules, self.section, self.name) is not None
        if is_there and self.is_new:
            raise AreaError(f"There is a {word} {self.name} already. Give this one another name.")
        if not is_there and not self.is_new:
            raise AreaError(f"There is no {word} {self.name} any more. Draw a new one.")
        unknown = sorted((self.labels or frozenset()) - {*labels_of_camera(camera_rules)})
        if unknown:
            raise AreaError(f"The rules of this camera name no label {unknown[0][:40]}.")
        return area


def corners_text(polygon: Iterable[tuple[float, float]]) -> str:
    """Returns corners as a person writes them, each in a line."""
    return "\n".join(f"{round(x, 4):g}, {round(y, 4):g}" for x, y in polygon)


def parse_corners(text: str) -> tuple[tuple[float, float], ...]:
    """Reads corners: pairs of numbers with anything of ``,;[]()`` and spaces between them.

    Raises:
      FormError: They are none, or too many.
    """
    if len(text) > _LONGEST_POLYGON:
        raise FormError(400, f"The corners are too long; give up to {MOST_CORNERS} corners.")
    parts = [part for part in _BETWEEN.split(text) if part]
    wrong = next((part for part in parts if not _NUMBER.fullmatch(part)), None)
    if wrong is not None:
        raise FormError(400, f"A corner is no pair of numbers such as 0.25, 0.5: {wrong[:40]}")
    if len(parts) % 2:
        raise FormError(
            400, "The last corner has one number only; it needs two, such as 0.25, 0.5."
        )
    if len(parts) > 2 * MOST_CORNERS:
        raise FormError(
            400, f"There are {len(parts) // 2} corners; draw it with up to {MOST_CORNERS}."
        )
    numbers = list(map(float, parts))
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


# The page


def zones_page(console: Console, request: Request) -> Response:
    """Shows the zones and masks of a camera over an image of it, and those that are drawn."""
    camera = known_camera(console, request)
    console.rules_file.look()  # Somebody may just have saved.
    ruleset = console.rules_file.ruleset
    if ruleset is None:
        return _page(console, request, camera, None, None)
    camera_rules, query = ruleset.for_camera(camera), request.query_params
    fields = None
    if query.get("new") in SECTIONS:
        section: Section = "zones" if query["new"] == "zones" else "mask"
        fields = AreaFields(section, _free_name(camera_rules, section), is_new=True)
    for section in ("zones", "mask"):
        area = find_area(camera_rules, section, query.get(section, ""))
        fields = fields if area is None else AreaFields.of_area(area)
    return _page(console, request, camera, ruleset, fields)


def _free_name(camera: rules.CameraRules, section: Section) -> str:
    names = (f"{WORDS[section]}-{number}" for number in range(1, 1 << 20))
    return next(name for name in names if find_area(camera, section, name) is None)


def _page(
    console: Console,
    request: Request,
    camera: str,
    ruleset: rules.Rules | None,
    fields: AreaFields | None,
    *,
    lines: Iterable[str] = (),
    diff: str | None = None,
    problem: str | None = None,
    status: int = 200,
) -> Response:
    person: Person = request.state.person
    camera_rules = None if ruleset is None else ruleset.for_camera(camera)
    areas: list[Zone | Mask] = []
    if camera_rules is not None:
        areas = [*camera_rules.zones.values(), *camera_rules.masks.values()]
    image, no_image = _chosen_image(console, camera, request.query_params.get("at"))
    shown = [_shown(camera, area, fields) for area in areas]
    return console.render(
        request,
        "zones",
        status=status,
        camera=camera,
        has_rules=ruleset is not None,
        is_refused=ruleset is not None and _is_refused(ruleset, camera),
        areas=shown,
        can_remove=any(area["is_edited"] and area["is_own"] for area in shown),
        fields=fields if person.may(OPERATOR) else None,
        labels=() if camera_rules is None else labels_of_camera(camera_rules),
        days=DAYS,
        may_draw=person.may(OPERATOR),
        may_save=person.may(ADMIN),
        expected="" if ruleset is None else _expected(console, ruleset),
        said=_SAID.get(request.query_params.get("said", "")),
        lines=lines,
        diff=None if diff is None else diff.splitlines(),
        problem=problem,
        at=request.query_params.get("at", ""),
        image=image,
        size=(640, 480) if image is None else _size(console.output, image),
        no_image=no_image,
    )


def _expected(console: Console, ruleset: rules.Rules) -> str:
    """Returns the hash of the rule file; nothing if it is not the version that the page shows."""
    sha256 = hashlib.sha256(console.rules_file.data or b"").hexdigest()
    return sha256 if sha256[:12] == ruleset.version else ""


def _is_refused(ruleset: rules.Rules, camera: str) -> bool:
    return ruleset.strict_ids and not ruleset.has_camera(camera)


def _shown(camera: str, area: Zone | Mask, fields: AreaFields | None) -> dict[str, Any]:
    section = "zones" if isinstance(area, Zone) else "mask"
    own = f"cameras.{camera}.{section}.{area.name}"
    is_own = own in area.origins.values()
    if isinstance(area, Zone) and not is_own:
        is_own = any(one.entry.startswith(f"{own}.") for one in (area.objects or {}).values())
    labels = labels_of(area)
    return {
        "section": section,
        "word": WORDS[section],
        "name": area.name,
        "points": " ".join(f"{x:g},{y:g}" for x, y in area.polygon or ()),
        "anchor": area.anchor,
        "min_overlap": area.min_overlap,
        "labels": None if labels is None else sorted(labels),
        "is_own": is_own,
        "origin": area.origins.get("polygon", ""),
        "is_edited": fields is not None
        and not fields.is_new
        and (fields.section, fields.name) == (section, area.name),
    }


def _chosen_image(
    console: Console, camera: str, at: str | None
) -> tuple[StoredImage | None, str | None]:
    """Returns the last image until a time, or the last of all; or why there is none."""
    moment = views.utc_minutes(at)
    if moment is None:
        if at:
            return None, f"{at[:40]} is no time such as 2026-01-31T18:00."
        found = views.newest_image(console.output, console.index, console.fleet.view, camera)
        return found[0], found[1] or (None if found[0] else "No image is known.")
    try:
        images = images_of_day(console.output, camera, moment)
    except OSError as error:
        return None, f"The images can't be listed now ({why_unreadable(error)})."
    if not images:
        return None, f"There is no image of {moment:%Y-%m-%d}."
    until = [image for image in images if image.capture_time <= moment]
    return (until[-1] if until else images[0]), None


def _size(output: str, image: StoredImage) -> tuple[int, int]:
    try:
        record = read_record(output, image)
        return int(record["width"]), int(record["height"])
    except (NoPictureError, OSError, ValueError, KeyError, TypeError):
        return 640, 480


# Tries


@dataclass(frozen=True)
class _Outcome:
    lines: tuple[str, ...] = ()
    dots: tuple[tuple[float, float, bool], ...] = ()
    diff: str | None = None
    problem: str | None = None


async def try_area(console: Console, request: Request) -> Response:
    """Says what a zone or mask would have changed, and how the rule file would say it."""
    form = await read_form(request, _MOST_FIELDS)
    check_token(console.guarded, request, form)
    camera = await asyncio.to_thread(known_camera, console, request)
    fields = AreaFields.of_form(form)
    ruleset = _rules_of(console, camera)
    try:
        area = fields.drawn(camera, ruleset.for_camera(camera))
        outcome = await _in_time(console, request, area, fields.days)
    except AreaError as error:
        outcome = _Outcome(problem=str(error))
    if "x-console" in request.headers:
        return JSONResponse(asdict(outcome))
    return await asyncio.to_thread(
        _page,
        console,
        request,
        camera,
        ruleset,
        fields,
        lines=outcome.lines,
        diff=outcome.diff,
        problem=outcome.problem,
        status=200 if outcome.problem is None else 422,
    )


def _rules_of(console: Console, camera: str) -> rules.Rules:
    """Returns the rules as they are.

    Raises:
      FormError: There are none, or they refuse the camera.
    """
    ruleset = console.rules_file.ruleset
    if ruleset is None:
        raise FormError(409, "The console was started without --rules, so it knows no rule file.")
    if _is_refused(ruleset, camera):
        raise FormError(
            409,
            f"The rules are strict and do not name {camera}, so its images are refused. Name it "
            "in the rule file first.",
        )
    return ruleset


async def _in_time(console: Console, request: Request, area: DrawnArea, days: int) -> _Outcome:
    """Tries an area in a thread, as long as somebody waits for it.

    Raises:
      FormError: Too many are being tried, the store fails, or it takes too long.
      AreaError: The rule file can't have such an area.
    """
    if console.trials_at_work >= _MOST_WAITING:
        raise FormError(503, "Too many people are drawing at once. Try again in a few seconds.")
    loop, is_over = asyncio.get_running_loop(), threading.Event()
    deadline = loop.time() + _LONGEST_WAIT_SECONDS
    console.trials_at_work += 1
    work = loop.run_in_executor(console.trial_threads, _attempt, console, area, days, is_over)

    def ended(future: asyncio.Future[_Outcome]) -> None:
        console.trials_at_work -= 1
        if not future.cancelled():
            future.exception()  # It is known, even if nobody waits any more.

    work.add_done_callback(ended)
    try:
        while not (await asyncio.wait({work}, timeout=_LOOKS_SECONDS))[0]:
            if await request.is_disconnected() or loop.time() > deadline:
                raise FormError(
                    503, "It takes too long to read the images. Choose a shorter period."
                )
        return work.result()
    except AbandonedError:
        raise FormError(503, "The console is being stopped.") from None
    except OSError as error:
        raise FormError(
            503, f"The images can't be read now ({why_unreadable(error)}). Try again."
        ) from None
    finally:
        is_over.set()


def _attempt(console: Console, area: DrawnArea, days: int, is_over: threading.Event) -> _Outcome:
    now = _rules_of(console, area.camera)
    diff = _difference(console, area, now)

    def find_newest() -> datetime | None:
        image, problem = views.newest_image(
            console.output, console.index, console.fleet.view, area.camera
        )
        if problem is not None:
            raise OSError(problem)
        return None if image is None else image.capture_time.astimezone(timezone.utc)

    tried = console.trials.attempt(
        area,
        now,
        area.applied(now),
        facts_of(console.index.marks_of_camera(area.camera)),
        days=days,
        find_newest=find_newest,
        is_wanted=lambda: not is_over.is_set(),
    )
    return _Outcome(tuple(_in_words(tried)), tried.dots, diff)


def _in_words(tried: Tried) -> Iterable[str]:
    trial = tried.trial
    if tried.newest is None:
        yield "No image of this camera is known, so nothing can be counted."
        return
    if trial.lost_right:
        yield f"It LOSES {number_of(trial.lost_right, 'alert')} marked as right."
    rest = trial.lost - trial.lost_right - trial.lost_false
    yield (
        f"Of {number_of(trial.alerts, 'alert')}, {trial.lost:,} would not have been sent"
        + f" ({trial.lost_false:,} marked false, {trial.lost_right:,} right, {rest:,} neither)"
        * bool(trial.lost)
        + f"; {trial.gained:,} more would have been."
    )
    yield f"Of {number_of(trial.threats, 'threat')}, {trial.inside:,} lie in it, by its anchor."
    days = "day" if tried.days == 1 else f"{tried.days} days"
    yield (
        f"Judged: {number_of(trial.images, 'image')} of the {days} until "
        f"{tried.newest:%Y-%m-%d %H:%M} UTC, by the rules as they are and with this change."
    )
    if tried.is_cut:
        yield f"There are more images; only the newest {MOST_IMAGES:,} were judged."
    if tried.unread:
        yield f"{number_of(tried.unread, 'record')} could not be read."


# Changes of the rule file


def _difference(console: Console, area: DrawnArea, now: rules.Rules) -> str:
    """Returns how the rule file would say it: as a diff, or of a large file what it would add.

    Raises:
      AreaError: The file can't have such an area.
    """
    settings = area.settings(now.for_camera(area.camera))
    if console.rule_file is None or not settings:
        return ""
    data = console.rules_file.data or b""
    if len(data) > _LARGE_FILE:
        return "".join(f"{setting_text(setting)}\n" for setting in settings)
    text = data.decode()
    try:
        changed = console.rule_file.with_settings(text, settings)
    except BrokenRulesError as error:
        raise AreaError(str(error)) from None
    area.check(rules.parse_rules(changed.encode(), console.rule_file.path).for_camera(area.camera))
    return console.rule_file.difference(text, changed)


async def save_area(console: Console, request: Request) -> Response:
    """Writes a zone or mask into the rule file, or removes one from it."""
    form = await read_form(request, _MOST_FIELDS)
    check_token(console.guarded, request, form)
    camera = await asyncio.to_thread(known_camera, console, request)
    fields = AreaFields.of_form(form)
    _rules_of(console, camera)
    person: Person = request.state.person
    loop = asyncio.get_running_loop()
    try:
        said = await asyncio.wait_for(
            loop.run_in_executor(
                console.mark_threads, _save, console, camera, fields, form, person
            ),
            _LONGEST_WAIT_SECONDS,
        )
    except UnwritableError as error:
        problem, diff = str(error), error.diff
    except (AreaError, ChangeRefusedError) as error:
        problem, diff = str(error), None
    except asyncio.TimeoutError:
        raise FormError(
            503,
            "It takes too long to write the rule file. It may still be written: look at this page "
            "again before you try again.",
        ) from None
    else:
        return RedirectResponse(f"/cameras/{camera}/zones?said={said}", 303)

    def refusal() -> Response:
        console.rules_file.look()
        now = console.rules_file.ruleset
        return _page(console, request, camera, now, fields, diff=diff, problem=problem, status=409)

    return await asyncio.to_thread(refusal)


def _save(
    console: Console, camera: str, fields: AreaFields, form: Mapping[str, str], person: Person
) -> str:
    """Changes the rule file; returns what was done, as a word of `_SAID`.

    Raises:
      AreaError: There can be no such area.
      ChangeRefusedError: The file was not changed.
    """
    assert console.rule_file is not None
    text = console.rule_file.read()
    camera_rules = rules.parse_rules(text.text.encode(), console.rule_file.path).for_camera(camera)
    is_removed = form.get("do") == "remove"
    if is_removed or text.sha256 != form.get("expected"):  # That is refused below.
        settings = removal(camera, fields.section, fields.name)
    else:
        area = fields.drawn(camera, camera_rules)
        settings = area.settings(camera_rules)
        if not settings:
            raise AreaError("The rule file says this already: nothing was moved or chosen anew.")
        changed = console.rule_file.with_settings(text.text, settings).encode()
        area.check(rules.parse_rules(changed, console.rule_file.path).for_camera(camera))
    why = form.get("why", "").strip()[:_LONGEST_WHY]
    console.rule_file.change(
        settings,
        expected=form.get("expected", ""),
        by=person.name,
        role=person.role,
        why=why or f"drawn on an image of {camera}",
    )
    console.rules_file.look()
    console.follower.changed()
    return "removed" if is_removed else "saved"
