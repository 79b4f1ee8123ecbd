"""The summary of a job, for a person."""

from __future__ import annotations

from collections import Counter

from beam_pipeline.console.progress import done
from beam_pipeline.job.name_notes import name_notes
from beam_pipeline.job.options import PACKED
from beam_pipeline.job.preparation import Job
from rules.text import number_of
from transforms.alerting.ledger import DELIVERED, SUPPRESSED, WAITING
from transforms.records import reasons
from transforms.send_alerts import DELIVERED_EARLIER, IN_DIGEST, TOO_OLD
from transforms.storage.shadow_alerts import DIFFERENCES
from transforms.storage.stores import join


def summarize(
    job: Job, counts: Counter[str], seconds: float, chart_path: str, report_path: str
) -> str:
    """Returns a few lines: found, valid, invalid, threats, alerts, speed, and where the results
    are.

    Args:
      job: The job.
      counts: The counters of all its steps.
      seconds: How long it took, start-up included.
      chart_path: Where the chart is.
      report_path: Where the report is, or why there is none.
    """
    invalid = {name: counts[f"images.invalid.{name}"] for name in reasons.ALL}
    lines = [
        ("found", f"{counts['images.found']} images in {job.input}"),
        ("valid", f"{counts['images.valid']}{_resumed(counts)}"),
        ("invalid", f"{sum(invalid.values())}{_parts(invalid)}"),
    ]
    if counts["images.repeated"]:
        lines.append(("repeated", f"{counts['images.repeated']} (the same image again)"))
    if unlistable := counts["source.unlistable"]:
        where = f"folders in {job.input} that can't be listed; the log names them"
        lines.append(("not listed", f"{unlistable} ({where})"))
    if links := counts["source.links_passed_over"]:
        lines.append(("links", f"{links} skipped; --follow_links follows them"))
    lines += [("names", note) for note in name_notes(job, counts)]
    for severity in ("alert", "detection"):
        labels = _under(counts, f"threats.{severity}.")
        lines.append((f"threats, {severity}", f"{sum(labels.values())}{_parts(labels)}"))
    outcomes = _under(counts, "alerts.")
    targets = len(job.options.alert_urls) + len(job.rules.current.notified_targets)
    lines.append(("alerts", _alerts(outcomes, targets)))
    if digests := _under(counts, "digests."):
        lines.append(("digests", f"{_sent(digests)}{_parts(digests)}"))
    lines += [
        ("model", f"{job.model.info.name}, version {job.model.info.version}"),
        ("rules", f"{job.rules_source}, version {job.rules.current.version}"),
    ]
    if job.shadow is not None:
        lines += [
            ("shadow rules", f"{job.shadow_source}, version {job.shadow.current.version}"),
            ("shadow", _shadow(counts)),
        ]
    if not job.options.streaming:  # A stream waits most of its time.
        speed = f"{done(counts) / seconds:.1f} images/s ({seconds:.1f} s, not counting set-up)"
        lines.append(("speed", speed))
    if too_small := counts["images.too_small_for_tiles"]:
        note = f"{too_small} images are too small for the tiles of their cameras"
        lines.append(("tiles", f"{note} and were looked at only as a whole"))
    if counts["model.batches"]:
        lines.append(("inference", _inference(counts)))
    verdicts = "packed" if job.options.repository == PACKED else "final"
    lines += [
        ("verdicts", join(job.output, verdicts)),
        ("counts", join(job.output, "counts")),
        ("chart", chart_path),
        ("report", report_path),
    ]
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines)


def _under(counts: Counter[str], prefix: str) -> dict[str, int]:
    return {
        name.removeprefix(prefix): number
        for name, number in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        if name.startswith(prefix)
    }


def _parts(numbers: dict[str, int]) -> str:
    some = [f"{name} {number}" for name, number in numbers.items() if number]
    return f" ({', '.join(some)})" if some else ""


def _resumed(counts: Counter[str]) -> str:
    resumed = counts["images.resumed"]
    return f" ({resumed} of them processed in an earlier run)" if resumed else ""


def _inference(counts: Counter[str]) -> str:
    batches = counts["model.batches"]
    images, tiles = counts["model.images"] / batches, counts["model.tiles"] / batches
    size = f"{images:.1f} images and {tiles:.1f} tiles" if tiles else f"{images:.1f} images"
    milliseconds = counts["model.microseconds"] / batches / 1000
    return (
        f"{number_of(batches, 'batch', 'batches')} of {size} and {milliseconds:.0f} ms on average"
    )


def _shadow(counts: Counter[str]) -> str:
    both, only_rules, only_shadow = (counts[f"shadow.{one}"] for one in DIFFERENCES)
    return (
        f"alerts of {both} images by both, of {only_rules} only by the rules, of {only_shadow} "
        "only by the shadow rules; `rules shadow` says which"
    )


def _sent(outcomes: dict[str, int]) -> int:
    """Returns what was tried or would have been; what waited is among the others by the end."""
    return sum(number for outcome, number in outcomes.items() if outcome != WAITING)


def _alerts(outcomes: dict[str, int], targets: int) -> str:
    apart = (SUPPRESSED, IN_DIGEST, TOO_OLD, DELIVERED_EARLIER)
    sent = {outcome: number for outcome, number in outcomes.items() if outcome not in apart}
    missing = _sent(sent) - sent.get(DELIVERED, 0)
    each = f" to {targets} targets" if targets > 1 else ""
    text = f"{_sent(sent)}{each}{_parts(sent)}"
    if missing and targets:
        text += (
            f"; {missing} not delivered (alerts/ says why): the same command or `alerts resend` "
            "tries them again"
        )
    elif missing:
        text += "; the same command with --alert_url sends them"
    if earlier := outcomes.get(DELIVERED_EARLIER):
        text += f"; {earlier} more delivered before"
    if suppressed := outcomes.get(SUPPRESSED):
        text += f"; {suppressed} more suppressed in the cooldown of an alert"
    if in_digest := outcomes.get(IN_DIGEST):
        text += f"; {in_digest} more reported in digests, beyond a limit of the rules"
    if too_old := outcomes.get(TOO_OLD):
        text += f"; {too_old} more older than --alert_max_age, and not sent"
    return text
