"""Why there was or was no alert, in plain sentences, from what the final JSON holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rules.errors import one_line

_WEAK = 0.25
"""Rejected detections of lower scores are summed up: a detector has dozens in each picture."""

_WHY: dict[str, Callable[[Any, Any], str]] = {
    "objects": lambda value, bound: "the rules do not look for it",
    "severity": lambda value, bound: "it is tolerated (severity ignore)",
    "min_score": lambda value, bound: f"its score {value} is below min_score {bound}",
    "min_area": lambda value, bound: f"it covers {value} of the frame, less than min_area {bound}",
    "max_area": lambda value, bound: f"it covers {value} of the frame, more than max_area {bound}",
    "min_ratio": lambda value, bound: (
        f"its width is {value} of its height, less than min_ratio {bound}"
    ),
    "max_ratio": lambda value, bound: (
        f"its width is {_or_endless(value)} of its height, more than max_ratio {bound}"
    ),
    "mask": lambda value, bound: f"it lies in the mask {value}",
    "zones": lambda value, bound: f"it lies in no zone that takes it ({', '.join(bound)})",
    "schedule": lambda value, bound: f"the camera is not armed at {value}, its own time",
    "min_score_at_night": lambda value, bound: (
        f"it is night, and its score {value} is below min_score_at_night {bound}"
    ),
    "repeats": lambda value, bound: (
        f"it was at the same place in earlier pictures ({value}, and {bound} make a repeat)"
    ),
    "min_count": lambda value, bound: f"there are {value} of it, fewer than min_count {bound}",
    "max_count": lambda value, bound: f"there are {value} of it, more than max_count {bound}",
    "confirm": lambda value, bound: (
        f"it was seen in {value} picture{'' if value == 1 else 's'} of late, and confirm asks for "
        f"{bound}"
    ),
}
"""What each filter that rejects has to say of its value and bound."""


def explain(data: Mapping[str, Any]) -> str:
    """Why an image called for an alert, or did not. Lines end in ``\\n``.

    Args:
        data: the image JSON of ``final/``.

    Raises:
        ValueError: it holds no verdict that can be read.
    """
    try:
        lines = [*_verdict(data), *_detections(data)]
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"is no image JSON of final/ ({type(error).__name__}: {error})") from error
    return "".join(f"{one_line(line)}\n" for line in lines)


def _verdict(data: Mapping[str, Any]) -> Iterator[str]:
    threat = data["threat"]
    yield f"{data['id']} at {data['timestamp']}, judged by rules {threat['rules_version']}:"
    number = threat.get("incident_number")
    if threat.get("suppressed_by") is not None:
        yield (
            f"No alert was sent: it comes in the cooldown of alert {threat['suppressed_by']}, as "
            f"picture {number} of that incident."
        )
    elif threat["severity"] == "alert":
        yield "It calls for an alert."
    elif threat["severity"] == "detection":
        yield "No alert: its threats are of severity detection, to be recorded and counted only."
    elif data["detections"]:
        yield "No alert: nothing in it is a threat."
    else:
        yield "No alert: nothing was detected in it."


def _detections(data: Mapping[str, Any]) -> Iterator[str]:
    threat, found = data["threat"], data["detections"]
    checks = {one["detection"]: one["checks"] for one in threat.get("trace", ())}
    outcome: dict[int, str] = {}
    others: list[str] = []
    weak: list[str] = []
    for one in threat["threats"]:
        zone = "" if one["zone"] is None else f", in zone {one['zone']}"
        outcome[one["detection"]] = (
            f"a threat of severity {one['severity']} by {one['rule']}{zone}{_passed(checks, one)}"
        )
    for one in threat["rejected"]:
        if one["by"] == "objects":
            others.append(one["label"])
            continue
        if found[one["detection"]]["conf"] < _WEAK:
            weak.append(one["label"])
            continue
        last = next(
            (check for check in checks.get(one["detection"], ()) if not check["passes"]), None
        )
        why = one["by"] if last is None else _WHY[one["by"]](last["value"], last["bound"])
        outcome[one["detection"]] = f"no threat, as {why} (by {one['rule']})"
    for index in sorted(outcome):
        yield f"- {found[index]['label']}, score {found[index]['conf']}: {outcome[index]}."
    if weak:
        labels = ", ".join(sorted(set(weak)))
        yield f"- {len(weak)} more, with scores below {_WEAK}: {labels}."
    if others:
        labels = ", ".join(sorted(set(others)))
        yield f"- {len(others)} more, of labels that the rules do not look for: {labels}."


def _passed(checks: Mapping[int, Any], one: Mapping[str, Any]) -> str:
    passed = [
        f"{check['filter']} {check['value']}"
        + (
            ""
            if isinstance(check["bound"], (list, str))
            else f" where {check['bound']} is asked for"
        )
        for check in checks.get(one["detection"], ())
        if check["value"] is not None
    ]
    return f" ({', '.join(passed)})" if passed else ""


def _or_endless(value: Any) -> Any:
    return "an endless multiple" if value is None else value
