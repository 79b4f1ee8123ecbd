"""Explains in plain sentences why there was an alert or not, from the image JSON of ``final/``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from rules.local_times import local_words
from rules.records import CheckJson, FinalImageJson, ThreatJson, VerdictJson
from rules.text import escaped, number_of

_MIN_SCORE_SHOWN = 0.25
"""Rejected detections with lower scores are summarized: a detector has dozens in each image."""

_REJECTIONS: dict[str, Callable[[Any, Any], str]] = {
    "objects": lambda value, bound: "the rules do not list this label",
    "severity": lambda value, bound: "the rules tolerate it (severity ignore)",
    "min_score": lambda value, bound: _compared("score", value, "minimum", bound),
    "min_area": lambda value, bound: _compared("area", value, "minimum", bound),
    "max_area": lambda value, bound: _compared("area", value, "maximum", bound),
    "min_ratio": lambda value, bound: _compared("width/height", value, "minimum", bound),
    "max_ratio": lambda value, bound: _compared(
        "width/height", "infinite" if value is None else value, "maximum", bound
    ),
    "mask": lambda value, bound: f"it lies in the mask {value}",
    "zones": lambda value, bound: f"it lies in none of its zones ({', '.join(bound)})",
    "schedule": lambda value, bound: f"the camera was not armed at {value}, local time",
    "min_score_at_night": lambda value, bound: _compared("score", value, "minimum at night", bound),
    "repeats": lambda value, bound: (
        f"it was in the same place in {number_of(value, 'earlier image')}, "
        f"and {bound} make a repeat"
    ),
    "track": lambda value, bound: (
        f"its score is low, and no object of its label moved to its place within {bound:g} s"
    ),
    "min_count": lambda value, bound: _compared("objects of this label", value, "minimum", bound),
    "max_count": lambda value, bound: _compared("objects of this label", value, "maximum", bound),
    "confirm": lambda value, bound: (
        f"its label is in {number_of(value, 'image')} of the last few, and confirm requires {bound}"
    ),
}
"""For each filter, why it rejects a detection, from the value and the bound that it compared."""

_PASSES: dict[str, Callable[[Any, Any], str]] = {
    **_REJECTIONS,
    "zones": lambda value, bound: f"zone {value}",
    "schedule": lambda value, bound: f"armed at {value}, local time",
    "repeats": lambda value, bound: (
        f"in the same place in {number_of(value, 'earlier image')}, fewer than {bound}"
    ),
    "track": lambda value, bound: f"moved within {value:g} s",
    "confirm": lambda value, bound: f"confirmed by {number_of(value, 'image')}, minimum {bound}",
}
"""For each filter, why a detection passes it."""


def explain(
    image: Mapping[str, Any],
    alert: Mapping[str, Any] | None = None,
    *,
    timezone: str = "UTC",
) -> str:
    """Explains why an image called for an alert, or did not. Lines end in ``\\n``.

    Args:
        image: The image JSON of ``final/``.
        alert: The record of its alert in ``alerts/``, which says what became of it; None if there
            is none.
        timezone: The IANA name of the time zone in which the capture time is shown.

    Raises:
        ValueError: The JSON contains no valid verdict.
    """
    final = cast(FinalImageJson, image)  # A wrong shape is an error below.
    try:
        lines = [
            *_explain_verdict(final, timezone),
            *_explain_targets(alert),
            *_explain_detections(final),
        ]
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise ValueError(
            f"is not an image's JSON of final/ ({type(error).__name__}: {error})"
        ) from error
    return "".join(f"{escaped(line)}\n" for line in lines)


def _explain_verdict(image: FinalImageJson, zone: str) -> Iterator[str]:
    verdict = image["threat"]
    time = local_words(_time(image["timestamp"]), zone)
    yield f"{image['id']} at {time}, judged by rules {verdict['rules_version']}:"
    number = verdict.get("incident_number")
    if verdict.get("suppressed_by") is not None:
        yield (
            f"No alert was sent: the cooldown of alert {verdict['suppressed_by']} suppresses it. "
            f"It is image {number} of that incident."
        )
    elif verdict["severity"] == "alert":
        yield "It calls for an alert."
        if (follow_up := verdict.get("follow_up")) is not None:
            began, last = (
                local_words(_time(follow_up[name]), zone)  # type: ignore[literal-required]
                for name in ("began", "last_alert")
            )
            yield f"It follows the alert of {last}: the incident that began at {began} goes on."
    elif verdict["severity"] == "detection":
        yield "No alert: its threats have the severity detection, which is recorded and counted."
    elif image["detections"]:
        yield "No alert: nothing in it is a threat."
    else:
        yield "No alert: nothing was detected in it."


def _time(timestamp: str) -> datetime:
    return datetime.fromisoformat(timestamp.replace("Z", "+00:00"))


def _explain_targets(alert: Mapping[str, Any] | None) -> Iterator[str]:
    for entry in () if alert is None else alert["targets"]:
        if entry["target"] is not None:
            detail = f", {entry['detail']}" if entry["detail"] else ""
            yield f"Target {entry['target']}: {entry['outcome']}{detail}."


def explain_detections(image: Mapping[str, Any]) -> dict[int, str]:
    """Explains why each detection that was judged is a threat, or is none.

    Args:
        image: The image JSON of ``final/``.

    Returns:
        A sentence for each, without a full stop, by the number of the detection.

    Raises:
        ValueError: The JSON contains no valid verdict.
    """
    final = cast(FinalImageJson, image)  # A wrong shape is an error below.
    try:
        explanations = _explanations(final)
        for index in explanations:
            final["detections"][index]  # A verdict on what was not detected is an error too.
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise ValueError(
            f"is not an image's JSON of final/ ({type(error).__name__}: {error})"
        ) from error
    return {index: escaped(explanations[index]) for index in sorted(explanations)}


def _explanations(image: FinalImageJson) -> dict[int, str]:
    verdict = image["threat"]
    checks = _checks_by_detection(verdict)
    explanations: dict[int, str] = {}
    for threat in verdict["threats"]:
        zone = "" if threat["zone"] is None else f", in zone {threat['zone']}"
        explanations[threat["detection"]] = (
            f"a threat of severity {threat['severity']}, rule {threat['rule']}{zone}"
            f"{_passed_checks(checks, threat)}"
        )
    for rejected in verdict["rejected"]:
        index, filter_name = rejected["detection"], rejected["by"]
        failed = next((check for check in checks.get(index, ()) if not check["passes"]), None)
        reason = filter_name
        if failed is not None or filter_name == "objects":
            values = (None, None) if failed is None else (failed["value"], failed["bound"])
            reason = _REJECTIONS[filter_name](*values)
        rule = "" if rejected["rule"] is None else f" (rule {rejected['rule']})"
        explanations[index] = f"no threat: {reason}{rule}"
    return explanations


def _explain_detections(image: FinalImageJson) -> Iterator[str]:
    verdict, detections = image["threat"], image["detections"]
    explanations = _explanations(image)
    shown = {threat["detection"] for threat in verdict["threats"]}
    unlisted: list[str] = []
    weak: list[str] = []
    for rejected in verdict["rejected"]:
        index = rejected["detection"]
        if rejected["by"] == "objects":
            unlisted.append(rejected["label"])
        elif detections[index]["conf"] < _MIN_SCORE_SHOWN:
            weak.append(rejected["label"])
        else:
            shown.add(index)
    for index in sorted(shown):
        detection = detections[index]
        yield f"- {detection['label']}, score {detection['conf']}: {explanations[index]}."
    if weak:
        labels = ", ".join(sorted(set(weak)))
        yield f"- {len(weak)} more, with scores below {_MIN_SCORE_SHOWN}: {labels}."
    if unlisted:
        labels = ", ".join(sorted(set(unlisted)))
        yield f"- {len(unlisted)} more, with labels that the rules do not list: {labels}."


def _checks_by_detection(verdict: VerdictJson) -> dict[int, list[CheckJson]]:
    return {trace["detection"]: trace["checks"] for trace in verdict.get("trace", ())}


def _passed_checks(checks: Mapping[int, Sequence[CheckJson]], threat: ThreatJson) -> str:
    passed = [
        _PASSES[check["filter"]](check["value"], check["bound"])
        for check in checks.get(threat["detection"], ())
        if check["value"] is not None
    ]
    return f" ({'; '.join(passed)})" if passed else ""


def _compared(measure: str, value: Any, limit: str, bound: Any) -> str:
    """Returns a value and its bound, such as `score 0.92, minimum 0.5`.

    The value is rounded to two significant digits, unless that would move it to the other side of
    the bound, or onto it.
    """
    if isinstance(value, float):
        short = float(f"{value:.2g}")
        if (short < bound, short > bound) == (value < bound, value > bound):
            value = short
    return f"{measure} {value}, {limit} {bound}"
