"""Computes what the job must have written for all that was fed, without any code of the job.

The truth of a file follows from its name, its bytes and the feeder's log. The output is then read
as a stranger reads it, and every difference is a :class:`Violation`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from soak import images
from soak.images import Look

RULES = """\
version: 1
targets:
  guard: {{webhook: "{guard}"}}
limits: {{per_id: {{alerts: {limit}, within: 1m}}}}
defaults:
  objects:
    person: {{min_score: 0.5, severity: alert}}
    dog: {{min_score: 0.5, severity: detection}}
  cooldown: 0s
  notify: [guard]
"""
"""The rule file of a soak; :class:`soak.images.Look` says what follows from it."""

LIMIT_WINDOW_SECONDS = 60
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_NAME = re.compile(r"(.*)_([^_]*)\.jpe?g", re.IGNORECASE | re.DOTALL)
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FORMS = ("%Y%m%dT%H%M%SZ", "%Y-%m-%dT%H-%M-%S.%fZ")
_MISSED_SECONDS = 120
_DAY_SECONDS = 86400

ImageKey = tuple[str, int]
"""A camera and a capture time in milliseconds of Unix time."""
Cell = tuple[str, int]
"""A camera and the first second of a window, in Unix time."""


@dataclass(frozen=True)
class Violation:
    """Something that is not as it must be.

    Attributes:
      what: Its kind, the same words for all of a kind.
      where: A path, a camera and capture time, or a window.
      why: What was found, and what was expected.
      image_keys: The cameras and capture times that it is about, for the feeder's log.
    """

    what: str
    where: str
    why: str
    image_keys: tuple[ImageKey, ...] = ()


@dataclass(frozen=True)
class Settings:
    """The settings of the job.

    Attributes:
      window_seconds: Of the counts.
      lateness_seconds: How late an image may be and still be counted.
      limit: Alerts of one camera in a minute, to one target.
      targets: The targets, by the name that records give them.
      started: When the stream's time had begun, in Unix seconds: nothing before is late.
    """

    window_seconds: int
    lateness_seconds: int
    limit: int
    targets: tuple[str, ...]
    started: float


@dataclass(frozen=True)
class Accepted:
    """A message that a service has taken.

    Attributes:
      target: The target's name.
      key: Its `Idempotency-Key`.
      body: What it said.
    """

    target: str
    key: str
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Present:
    """A file that is there at the end."""

    path: str
    sha256: str
    look: Look | None
    reason: str | None
    image_key: ImageKey | None


@dataclass
class Group:
    """All that claims one camera and capture time.

    Attributes:
      present: The valid files that are there.
      gone: The versions of files that were deleted or moved away, by path: the one that the stream
        saw last is one of them.
      looks: What each version showed that ever was there, by sha256.
      first: When the first one was put.
      changed: When bytes that were new to the group were put last.
      age: How the feeder called its age.
      was_judged: One of it was deleted after its verdict was seen.
    """

    present: list[Present] = field(default_factory=list)
    gone: dict[str, list[str]] = field(default_factory=dict)
    looks: dict[str, Look] = field(default_factory=dict)
    first: float = 0.0
    changed: float = 0.0
    age: str = ""
    was_judged: bool = False

    @property
    def is_fleeting(self) -> bool:
        """Whether all of it was deleted before a verdict was seen.

        The stream may then have stored a verdict in a bundle that failed, and found no file when it
        looked again: the verdict stays, and is neither counted nor alerted.
        """
        return not self.present and not self.was_judged

    def selected(self) -> set[str]:
        """Returns the sha256 of the image to keep; several where more than one may be."""
        if not self.present:
            return set(self.looks)
        here = {present.sha256 for present in self.present}
        selected = _selected(here, self.looks)
        for seen_last in itertools.product(*self.gone.values()):
            selected |= _selected({*here, *seen_last}, self.looks)
        return selected


def _selected(candidates: set[str], looks: Mapping[str, Look]) -> set[str]:
    best = max(looks[candidate].rank for candidate in candidates)
    equals = sorted(candidate for candidate in candidates if looks[candidate].rank == best)
    return set(equals) if best[0] == 0 else {equals[0]}


def canonical(taken: int) -> str:
    """Returns a capture time as the job writes it."""
    seconds, millis = divmod(taken, 1000)
    time = _EPOCH + timedelta(seconds=seconds)
    return time.strftime("%Y-%m-%dT%H:%M:%S") + (f".{millis:03d}Z" if millis else "Z")


def _millis(text: str) -> int:
    since_epoch = (
        datetime.fromisoformat(text.removesuffix("Z")).replace(tzinfo=timezone.utc) - _EPOCH
    )
    return since_epoch // timedelta(milliseconds=1)


def parse(name: str) -> ImageKey | str:
    """Camera and capture time of a name, or the reason for which it has none."""
    match = _NAME.fullmatch(name)
    if match is None or not _ID.fullmatch(match[1]):
        return "bad_name"
    text = match[2]
    if re.fullmatch(r"[0-9]{13}|[0-9]{10}", text):
        return match[1], int(text.ljust(13, "0")) if len(text) == 13 else int(text) * 1000
    for form in _FORMS:
        try:
            time = datetime.strptime(text, form).replace(tzinfo=timezone.utc)
        except ValueError:
            continue
        return match[1], (time - _EPOCH) // timedelta(milliseconds=1)
    return "bad_timestamp"


def truth(path: str, data: bytes, put: float) -> Present:
    """Returns what a file is.

    Args:
      path: Beneath the folder.
      data: Its bytes.
      put: When it was put, in Unix seconds.
    """
    image_key = parse(path.rsplit("/", 1)[-1])
    look = images.read_look(data)
    reason: str | None = None
    if isinstance(image_key, str):
        reason = image_key
    elif image_key[1] > (put + _DAY_SECONDS) * 1000:
        reason = "timestamp_in_future"
    elif not data:
        reason = "empty_file"
    elif not data.startswith(b"\xff\xd8\xff"):
        reason = "not_jpeg"
    elif look is None:
        reason = "corrupt_jpeg"
    named = None if isinstance(image_key, str) else image_key
    return Present(path, images.digest(data), look if reason is None else None, reason, named)


def alert_id(image_key: ImageKey) -> str:
    """Returns the id of the alert of an image of severity `alert`."""
    text = "\n".join((image_key[0], canonical(image_key[1]), "alert"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class _Reader:
    """Reads files again only where they have changed."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, Any], tuple[tuple[int, int, int], Any]] = {}

    def read(self, path: Path, make: Callable[[bytes], Any]) -> Any:
        """Returns what a function makes of a file; None where it is gone."""
        try:
            status = path.stat()
            mark = status.st_mtime_ns, status.st_size, status.st_ino
            known = self._kept.get((str(path), make))
            if known is not None and known[0] == mark:
                return known[1]
            made = make(path.read_bytes())
        except FileNotFoundError:
            return None
        self._kept[str(path), make] = mark, made
        return made


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


def _rows(data: bytes) -> list[Any]:
    return [json.loads(line) for line in data.splitlines()]


@dataclass
class _InvalidRecords:
    """The records of `invalid/`, held against what is there.

    Attributes:
      present: The files that are there, by path.
      image_keys: The camera and capture time of each file that was fed, by path.
      selected: The sha256 of what `final/` holds, by camera and capture time.
      recorded: How many records there are of a file that is there, by path.
      fallen: How many records of duplicates there are, by camera, capture time and sha256.
    """

    present: Mapping[str, Present]
    image_keys: Mapping[str, ImageKey]
    selected: Mapping[ImageKey, set[str]]
    recorded: Counter[str] = field(default_factory=Counter)
    fallen: Counter[tuple[ImageKey, str]] = field(default_factory=Counter)

    def check(self, relative: str, record: Mapping[str, Any], where: str) -> Iterator[Violation]:
        """Yields what is wrong with one record of a file that was fed."""
        here = self.present.get(relative)
        if here is None:  # It is gone: what was found of it while it was there may stay.
            if record["reason"] == "duplicate":
                self.fallen[self.image_keys[relative], record["sha256"]] += 1
            return
        self.recorded[relative] += 1
        about = (self.image_keys[relative],)
        if record["sha256"] != here.sha256:
            why = f"{record['reason']} of {record['sha256']}, and it is {here.sha256[:12]} now"
            yield Violation("invalid record of an older version", where, why, about)
        elif here.reason is not None:
            if record["reason"] != here.reason:
                why = f"{record['reason']}, and not {here.reason}"
                yield Violation("wrong reason", where, why, about)
        elif record["reason"] != "duplicate":
            yield Violation("invalid record of a valid image", where, record["reason"], about)
        elif here.image_key in self.selected and here.sha256 in self.selected[here.image_key]:
            yield Violation("duplicate of itself", where, "it is kept", about)
        else:
            self.fallen[here.image_key or ("", 0), here.sha256] += 1

    def missing(self, groups: Mapping[ImageKey, Group]) -> Iterator[Violation]:
        """Yields what has no record, or several."""
        for relative, here in self.present.items():
            if here.reason is not None and self.recorded[relative] != 1:
                yield Violation(
                    "invalid file without its record" if not self.recorded[relative] else
                    "invalid file with several records",
                    relative, here.reason,
                    (self.image_keys[relative],) if relative in self.image_keys else (),
                )  # fmt: skip
        for image_key, group in groups.items():
            if image_key not in self.selected:
                continue
            for sha256 in {present.sha256 for present in group.present} - self.selected[image_key]:
                if (records := self.fallen[image_key, sha256]) != 1:
                    where = f"{image_key[0]} {canonical(image_key[1])}"
                    why = f"{sha256[:12]}: {records} records; {_names(group)}"
                    yield Violation("fallen image without its one record", where, why, (image_key,))


class Recount:
    """Compares an output with what was fed; may be asked again and again.

    Args:
      top: The folder that was fed.
      output: The job's output.
      settings: The settings of the job.
      address: The folder's address in the job's options; None for its path.
    """

    def __init__(
        self, top: Path, output: Path, settings: Settings, address: str | None = None
    ) -> None:
        self._top, self._output, self._settings = top, output, settings
        self._address = str(top) if address is None else address
        self._reader = _Reader()
        self._truths: dict[tuple[str, str, float], Present] = {}

    def violations(
        self, events: Sequence[Mapping[str, Any]], accepted: Sequence[Accepted]
    ) -> list[Violation]:
        """Everything that is not as it must be.

        Args:
          events: The feeder's log.
          accepted: What the services have taken, in order.
        """
        present = self._present(events)
        groups = _groups(present, events)
        finals = self._finals()
        violations = [
            *self._verdicts(groups, finals),
            *self._invalid(present, groups, finals, events),
            *self._counts(groups, finals),
            *self._alerts(groups, finals, accepted),
            *self._leftovers(),
        ]
        return sorted(violations, key=lambda violation: (violation.what, violation.where))

    def progress(self) -> tuple[int, int, int]:
        """Changes as long as the output does: files, their bytes, the newest change of one.

        Counts are written again with the same rows, as long as their windows are open.
        """
        files, size, newest = 0, 0, 0
        for path in self._output.rglob("*"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            if path.suffix in (".json", ".jpg", ".jsonl"):
                files, size = files + 1, size + status.st_size
            if path.suffix in (".json", ".jpg"):
                newest = max(newest, status.st_mtime_ns)
        return files, size, newest

    # ------------------------------------------------------------------ what is there

    def _present(self, events: Iterable[Mapping[str, Any]]) -> dict[str, Present]:
        put = {event["path"]: event["at"] for event in events if event["what"] == "put"}
        present = {}
        for path in self._top.rglob("*"):
            if path.is_symlink() or not path.is_file():
                continue
            relative = str(path.relative_to(self._top))
            sha256 = self._reader.read(path, images.digest)
            key = relative, sha256, put.get(relative, 0.0)
            if key not in self._truths:
                self._truths[key] = truth(relative, path.read_bytes(), key[2])
            present[relative] = self._truths[key]
        return present

    def _finals(self) -> dict[ImageKey, list[tuple[str, dict[str, Any]]]]:
        finals: dict[ImageKey, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
        for path in sorted((self._output / "final").glob("*/*.json")):
            record = self._reader.read(path, _json)
            if record is not None:
                finals[record["id"], _millis(record["timestamp"])].append((path.stem, record))
        return finals

    # ------------------------------------------------------------------ verdicts

    def _verdicts(
        self,
        groups: Mapping[ImageKey, Group],
        finals: Mapping[ImageKey, list[tuple[str, dict[str, Any]]]],
    ) -> Iterator[Violation]:
        for image_key, group in groups.items():
            records = finals.get(image_key, [])
            where, about = f"{image_key[0]} {canonical(image_key[1])}", (image_key,)
            if not records:
                if group.present or group.was_judged:
                    yield Violation("image without a verdict", where, _names(group), about)
                continue
            if len(records) > 1:
                yield Violation(
                    "several verdicts for one capture time",
                    where,
                    f"{[n for n, _ in records]}",
                    about,
                )
            for stem, record in records:
                yield from self._verdict(image_key, group, stem, record)
        yield from self._unexplained(groups, finals)

    def _unexplained(
        self,
        groups: Mapping[ImageKey, Group],
        finals: Mapping[ImageKey, list[tuple[str, dict[str, Any]]]],
    ) -> Iterator[Violation]:
        """Yields what no image that was fed explains."""
        for image_key, records in finals.items():
            if image_key not in groups:
                where = f"{image_key[0]} {canonical(image_key[1])}"
                yield Violation(
                    "verdict of what was never fed", where, f"{[n for n, _ in records]}"
                )
        known = {(record["id"], stem): record for some in finals.values() for stem, record in some}
        for kind, pattern in (("detections", "*/*.json"), ("validated", "*/*")):
            for path in (self._output / kind).glob(pattern):
                key = path.parent.name, path.name.rsplit(".", 1)[0]
                if key not in known and not path.name.startswith("."):
                    yield Violation(f"{kind} without a verdict", f"{kind}/{key[0]}/{path.name}", "")

    def _verdict(
        self, image_key: ImageKey, group: Group, stem: str, record: Mapping[str, Any]
    ) -> Iterator[Violation]:
        camera, about = image_key[0], (image_key,)
        where = f"final/{camera}/{stem}.json"
        sha256 = record["sha256"]
        look = group.looks.get(sha256)
        if look is None:
            yield Violation("verdict of unknown bytes", where, sha256, about)
            return
        if sha256 not in group.selected():
            selected = ", ".join(f"{sha[:12]} {group.looks[sha]}" for sha in group.selected())
            why = f"{sha256[:12]} {look} is kept, and not {selected}; {_names(group)}"
            yield Violation("the wrong image is kept", where, why, about)
        threat = record["threat"]
        detected = [
            (label, score)
            for label, score in (
                (detection["label"], detection["conf"]) for detection in record["detections"]
            )
        ]
        judged = [(entry["label"], entry["conf"]) for entry in threat["threats"]]
        if (
            sorted(detected) != sorted(look.detections)
            or sorted(judged) != sorted(look.threats)
            or threat["severity"] != look.severity
            or threat["is_threat"] != bool(look.threats)
        ):
            why = f"{detected} {judged} {threat['severity']} for {look}"
            yield Violation("wrong verdict", where, why, about)
        validated = self._output / "validated" / camera / record["file"]
        if self._reader.read(validated, images.digest) != sha256:
            yield Violation(
                "validated image is missing or another one", f"validated/{camera}/{record['file']}",
                f"the verdict is of {sha256[:12]}", about,
            )  # fmt: skip
        stored = self._reader.read(self._output / "detections" / camera / f"{stem}.json", _json)
        if (
            stored is None
            or stored["sha256"] != sha256
            or stored["detections"] != record["detections"]
        ):
            yield Violation(
                "detections are missing or of another image",
                f"detections/{camera}/{stem}.json", f"the verdict is of {sha256[:12]}", about,
            )  # fmt: skip

    # ------------------------------------------------------------------ invalid files

    def _invalid(
        self,
        present: Mapping[str, Present],
        groups: Mapping[ImageKey, Group],
        finals: Mapping[ImageKey, list[tuple[str, dict[str, Any]]]],
        events: Sequence[Mapping[str, Any]],
    ) -> Iterator[Violation]:
        image_keys = {event["path"]: (event["camera"], event["taken"]) for event in events}
        invalid = _InvalidRecords(
            present,
            image_keys,
            {
                image_key: {record["sha256"] for _, record in some}
                for image_key, some in finals.items()
            },
        )
        for path in sorted((self._output / "invalid").glob("*/*.json")):
            record = self._reader.read(path, _json)
            if not isinstance(record, dict) or "reason" not in record:
                continue  # An invalid file whose own name ends in .json.
            where = f"invalid/{path.parent.name}/{path.name}"
            relative = record["uri"].removeprefix(f"{self._address}/")
            about = (image_keys[relative],) if relative in image_keys else ()
            if relative not in image_keys:
                yield Violation("invalid record of what was never fed", where, record["uri"])
                continue
            kept = self._reader.read(path.with_name(path.name[: -len(".json")]), images.digest)
            if kept != record["sha256"] and record["reason"] != "read_failed":
                why = f"the record is of {record['sha256']}, the bytes of {kept}"
                yield Violation("invalid bytes are not those of the record", where, why, about)
            yield from invalid.check(relative, record, where)
        yield from invalid.missing(groups)

    # ------------------------------------------------------------------ counts

    def _counts(
        self,
        groups: Mapping[ImageKey, Group],
        finals: Mapping[ImageKey, list[tuple[str, dict[str, Any]]]],
    ) -> Iterator[Violation]:
        counted, several = self._tallies("counts", "*.jsonl")
        late, _ = self._tallies("late", "*/*.json")
        for camera, start in several:
            yield Violation("several count rows", f"{camera} {canonical(start * 1000)}", "")
        cells: dict[Cell, list[tuple[ImageKey, Group]]] = defaultdict(list)
        for image_key, group in groups.items():
            if group.present or image_key in finals:
                seconds = image_key[1] // 1000
                start = seconds // self._settings.window_seconds * self._settings.window_seconds
                cells[image_key[0], start].append((image_key, group))
        for cell in sorted({*cells, *counted, *late}):
            yield from self._cell(
                cell, cells.get(cell, []), counted.get(cell), late.get(cell), finals
            )

    def _cell(
        self,
        cell: Cell,
        members: list[tuple[ImageKey, Group]],
        counted: Counter[str] | None,
        late: Counter[str] | None,
        finals: Mapping[ImageKey, list[tuple[str, dict[str, Any]]]],
    ) -> Iterator[Violation]:
        settings = self._settings
        where = f"{cell[0]}, window of {canonical(cell[1] * 1000)}"
        about = tuple(image_key for image_key, _ in members)
        due: Counter[str] = Counter()  # What is certain, by place.
        either = 0  # Certain to be counted, but not where.
        fleeting = 0
        exact: dict[str, Counter[str]] = {"counts": Counter(), "late": Counter()}
        is_exact = True
        closes = cell[1] + settings.window_seconds + settings.lateness_seconds
        for _, group in members:
            folder = self._place(group)
            selected = group.selected()
            looks = {group.looks[sha256] for sha256 in selected}
            # What comes when the window is closed can't be put right any more.
            if group.changed > closes - 60 and len(set(group.looks.values())) > 1:
                looks = set(group.looks.values())
            if group.is_fleeting:
                fleeting += 1
                is_exact = False
                continue
            if folder is None:
                either += 1
                is_exact = False
                continue
            due[folder] += 1
            if len(looks) > 1:
                is_exact = False
            else:
                exact[folder].update(tally(looks.pop()))
        counts_by_folder = {"counts": counted or Counter(), "late": late or Counter()}
        total = sum(counts["images"] for counts in counts_by_folder.values())
        if not len(members) - fleeting <= total <= len(members):
            why = f"{total} images counted ({counts_by_folder}), {len(members)} are there"
            yield Violation("wrong number of images in the counts", where, why, about)
            return
        most = {folder: due[folder] + either + fleeting for folder in counts_by_folder}
        for folder in ("counts", "late"):
            if not due[folder] <= counts_by_folder[folder]["images"] <= most[folder]:
                why = (
                    f"{counts_by_folder[folder]['images']} images in {folder}, "
                    f"{due[folder]} belong there"
                )
                yield Violation("images counted in the wrong place", where, why, about)
                return
            if is_exact and +counts_by_folder[folder] != +exact[folder]:
                rows, due_rows = dict(+counts_by_folder[folder]), dict(+exact[folder])
                why = f"{folder} say {rows}, and not {due_rows}"
                yield Violation("wrong counts", where, why, about)

    def _place(self, group: Group) -> str | None:
        if group.age in ("on time", "ahead"):
            return "counts"
        return "late" if group.first > self._settings.started else None

    def _tallies(self, folder: str, pattern: str) -> tuple[dict[Cell, Counter[str]], list[Cell]]:
        tallies: dict[Cell, Counter[str]] = defaultdict(Counter)
        several = []
        for path in sorted((self._output / folder).glob(pattern)):
            for row in self._reader.read(path, _rows) or ():
                cell = row["id"], _millis(row["window_start"]) // 1000
                if cell in tallies and folder == "counts":
                    several.append(cell)
                for name in ("images", "threat_images", "threats", "alerts"):
                    tallies[cell][name] += row[name]
                for label, number in row["by_label"].items():
                    tallies[cell][f"label {label}"] += number
        return tallies, several

    # ------------------------------------------------------------------ alerts

    def _alerts(
        self,
        groups: Mapping[ImageKey, Group],
        finals: Mapping[ImageKey, list[tuple[str, dict[str, Any]]]],
        accepted: Sequence[Accepted],
    ) -> Iterator[Violation]:
        taken: dict[str, set[str]] = {name: set() for name in self._settings.targets}
        possible = {
            alert_id(image_key): image_key
            for image_key, group in groups.items()
            if any(look.severity == "alert" for look in group.looks.values())
        }
        digests = self._digests()
        for message in accepted:
            if message.key != message.body.get("alert_id"):
                yield Violation(
                    "key and body differ", message.key, str(message.body.get("alert_id"))
                )
            if message.key not in possible and message.key not in digests:
                yield Violation("message of no alert", message.key, str(message.body)[:300])
            taken[message.target].add(message.key)
        held: dict[tuple[str, str], list[ImageKey]] = defaultdict(list)
        records = {
            path.stem: self._reader.read(path, _json)
            for path in (self._output / "alerts").glob("*/*.json")
        }
        for key, image_key in possible.items():
            group, record = groups[image_key], records.get(key)
            yield from self._alert(image_key, group, key, record, taken, held, finals)
        for key in sorted(set(records) - set(possible)):
            yield Violation("record of no alert", key, str(records[key])[:300])
        yield from self._limits(possible, taken)
        yield from self._check_digests(digests, held, taken)
        for path in sorted((self._output / "alerts" / "_undelivered").rglob("*.json")):
            where = str(path.relative_to(self._output))
            letter = self._reader.read(path, _json) or {}
            about = possible.get(letter.get("alert", {}).get("alert_id"))
            yield Violation(
                "alert left undelivered",
                where,
                str(letter.get("detail")),
                (about,) if about else (),
            )

    def _alert(
        self,
        image_key: ImageKey,
        group: Group,
        key: str,
        record: Mapping[str, Any] | None,
        taken: Mapping[str, set[str]],
        held: dict[tuple[str, str], list[ImageKey]],
        finals: Mapping[ImageKey, list[tuple[str, dict[str, Any]]]],
    ) -> Iterator[Violation]:
        where, about = f"alerts/{image_key[0]}/{key}.json", (image_key,)
        selected = [record for _, record in finals.get(image_key, [])]
        is_due = any(record["threat"]["severity"] == "alert" for record in selected)
        if record is None:
            if is_due and not group.is_fleeting:
                yield Violation("alert without a record", where, canonical(image_key[1]), about)
            for target, keys in taken.items():
                if key in keys:
                    yield Violation("sent without a record", where, target, about)
            return
        outcomes = {target_record["target"]: target_record for target_record in record["targets"]}
        for target, keys in taken.items():
            outcome = outcomes.get(target, {"outcome": None, "detail": ""})
            name, detail = outcome["outcome"], outcome["detail"]
            if (name == "delivered") != (key in keys):
                why = f"{target}: the record says {name}, the service has {key in keys}"
                yield Violation("record and service differ", where, why, about)
            if name == "suppressed":
                held[target, detail.rsplit(" ", 1)[-1]].append(image_key)
            # None is too old: images are late by minutes, and the time of 1972 is plainly wrong.
            if name not in ("delivered", "suppressed"):
                why = f"{target}: {name} ({detail}), and not delivered or suppressed"
                yield Violation("alert not delivered", where, why, about)

    def _limits(
        self,
        possible: Mapping[str, ImageKey],
        taken: Mapping[str, set[str]],
    ) -> Iterator[Violation]:
        for target, keys in taken.items():
            sent: dict[Cell, list[ImageKey]] = defaultdict(list)
            for key in keys & set(possible):
                camera, millis = possible[key]
                start = millis // 1000 // LIMIT_WINDOW_SECONDS * LIMIT_WINDOW_SECONDS
                sent[camera, start].append((camera, millis))
            for (camera, start), image_keys in sent.items():
                if len(image_keys) > self._settings.limit:
                    where = f"{target}: {camera}, minute of {canonical(start * 1000)}"
                    why = f"{len(image_keys)} sent, the limit is {self._settings.limit}"
                    yield Violation("limit broken", where, why, tuple(sorted(image_keys)))

    def _digests(self) -> dict[str, Mapping[str, Any]]:
        digests = {}
        for path in sorted((self._output / "alerts" / "_digests").glob("*/*.json")):
            record = self._reader.read(path, _json)
            if record is not None:
                digests[path.stem] = record
        return digests

    def _check_digests(
        self,
        digests: Mapping[str, Mapping[str, Any]],
        held: Mapping[tuple[str, str], Sequence[ImageKey]],
        taken: Mapping[str, set[str]],
    ) -> Iterator[Violation]:
        for (target, key), image_keys in sorted(held.items()):
            if key not in digests:
                where = f"{target}: digest {key} of {image_keys[0][0]}"
                why = f"{len(image_keys)} alerts are held by it"
                yield Violation("held alerts without a digest", where, why, tuple(image_keys))
        for key, digest in digests.items():
            (outcome,) = digest["targets"]
            target, where = outcome["target"], f"digest {key} of {digest['id']}"
            if outcome["outcome"] != "delivered" or key not in taken[target]:
                why = f"{outcome['outcome']} ({outcome['detail']}); at {target}: "
                yield Violation("digest not delivered", where, f"{why}{key in taken[target]}")
            image_keys = tuple(held.get((target, key), ()))
            if digest["digest"]["alerts"] != len(image_keys):
                why = f"has {digest['digest']['alerts']}, {len(image_keys)} are held"
                yield Violation("digest has another number", where, why, image_keys)

    def _leftovers(self) -> Iterator[Violation]:
        for path in self._output.rglob(".*"):
            if path.is_file():
                yield Violation("file left behind", str(path.relative_to(self._output)), "")


def tally(look: Look) -> Counter[str]:
    """Returns what an image adds to a count row."""
    row = Counter(
        images=1,
        threat_images=int(bool(look.threats)),
        threats=len(look.threats),
        alerts=int(look.severity == "alert"),
    )
    row.update(f"label {label}" for label, _ in look.threats)
    return row


def _groups(
    present: Mapping[str, Present], events: Iterable[Mapping[str, Any]]
) -> dict[ImageKey, Group]:
    groups: dict[ImageKey, Group] = defaultdict(Group)
    puts: dict[tuple[ImageKey, str], list[tuple[float, str]]] = defaultdict(list)
    for event in events:
        if (
            event["look"] is None
            or event["age"] == "future"
            or event["what"] not in ("put", "delete")
        ):
            continue
        image_key = event["camera"], event["taken"]
        group = groups[image_key]
        if event["what"] == "delete":
            group.gone[event["path"]] = _maybe_seen_last(puts[image_key, event["path"]], event)
            group.was_judged = group.was_judged or bool(event.get("judged"))
            continue
        group.gone.pop(event["path"], None)
        puts[image_key, event["path"]].append((event["at"], event["sha256"]))
        group.first = group.first or event["at"]
        group.age = group.age or event["age"]
        if event["sha256"] not in group.looks:
            group.changed = event["at"]
            group.looks[event["sha256"]] = Look(*event["look"])
    for here in present.values():
        if here.reason is None and here.image_key is not None and here.look is not None:
            group = groups[here.image_key]
            group.present.append(here)
            group.looks.setdefault(here.sha256, here.look)
    return dict(groups)


def _maybe_seen_last(puts: Sequence[tuple[float, str]], deleted: Mapping[str, Any]) -> list[str]:
    """Returns the versions of a deleted file of which the stream may have seen one last.

    A stream that was disturbed may have missed a version that was there for a short time only.
    """
    versions = [deleted["sha256"]]
    for at, sha256 in reversed(puts):
        if sha256 != versions[-1]:
            versions.append(sha256)
        if deleted.get("judged") or deleted["at"] - at > _MISSED_SECONDS:
            break
    return versions


def _names(group: Group) -> str:
    return ", ".join(
        f"{present.path} ({present.sha256[:12]} {present.look})" for present in group.present
    )
