"""The page of the shadow rules: which alerts they would have sent, beside those of the rules."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from beam_pipeline.evaluation.shadow import KINDS, Compared, total_of
from beam_pipeline.web.pages.console import Console
from rules.local_times import local_words
from transforms.records.times import parse_time
from transforms.storage.shadow_alerts import ONLY_RULES, ONLY_SHADOW, Judgement

_PER_PAGE = 24
_VERSION = re.compile(r"[0-9a-f]{12}", re.ASCII)
_NUMBER = re.compile(r"\d{1,9}", re.ASCII)


@dataclass(frozen=True)
class Difference:
    """An image of which only one of the two has an alert, as the page shows it.

    Attributes:
      compared: What both say.
      words: Which of them has the alert.
      when: The local time of the capture.
      boxes: The label, score and box of each threat that calls for the alert.
    """

    compared: Compared
    words: str
    when: str
    boxes: tuple[tuple[str, float, tuple[float, ...]], ...]

    @property
    def labels(self) -> str:
        """The labels of the threats, each once."""
        return ", ".join(dict.fromkeys(label for label, _, _ in self.boxes))


def shadow_page(console: Console, request: Request) -> Response:
    """Shows the numbers of each camera, and the differences, the newest first."""
    query = request.query_params
    version = query.get("version")
    version = version if version and _VERSION.fullmatch(version) else None
    camera = query.get("camera", "").strip() or None
    begin = int(query["from"]) if _NUMBER.fullmatch(query.get("from", "")) else 0
    found = console.shadow.of(console.index, console.follower.status.version, version)
    differences = [
        one
        for one in found.compared
        if one.kind in (ONLY_RULES, ONLY_SHADOW) and camera in (None, one.alert.id)
    ]

    def address(**values: str | int | None) -> str:
        chosen = {"version": version, "camera": camera, **values}
        given = {name: value for name, value in chosen.items() if value}
        return f"/shadow?{urlencode(given)}" if given else "/shadow"

    end, total = begin + _PER_PAGE, total_of(found)
    return console.render(
        request,
        "shadow",
        here="Shadow",
        found=found,
        total=total,
        rows=[*([total] if len(found.cameras) > 1 else []), *found.cameras],
        camera=camera,
        number=len(differences),
        shown=[_shown(console, one) for one in differences[begin:end]],
        newer=address(**{"from": max(begin - _PER_PAGE, 0)}) if begin else None,
        older=address(**{"from": end}) if end < len(differences) else None,
        of_camera=lambda id: address(camera=id),
        of_version=lambda one: address(version=one),
    )


def _shown(console: Console, one: Compared) -> Difference:
    alert, ruleset = one.alert, console.rules_file.ruleset
    side: Judgement = alert.rules if one.kind == ONLY_RULES else alert.shadow
    zone = "UTC" if ruleset is None else ruleset.timezone_of(alert.id)
    boxes = tuple(
        (threat.label, threat.conf, threat.bbox)
        for threat in side.threats
        if threat.severity == "alert"
    )
    return Difference(one, KINDS[one.kind], local_words(parse_time(alert.timestamp), zone), boxes)
