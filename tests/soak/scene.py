"""A folder that was fed in no time, and an output as a job without faults writes it."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from soak import images
from soak.feeder import Clock, Feeder, Load
from soak.images import Look
from soak.recount import Accepted, Recount, Settings, Violation, alert_id, canonical, tally, truth

TARGETS = ("guard", "http://127.0.0.1:1#12345678")
START = 1_764_000_000.0


class FastClock(Clock):
    """Passes time at once."""

    def __init__(self, start: float = START) -> None:
        self._now = start

    @classmethod
    def ending_now(cls, seconds: float) -> FastClock:
        """One that has come to the present after so many seconds."""
        return cls(time.time() - seconds)

    def now(self) -> float:
        return self._now

    def wait(self, seconds: float) -> None:
        self._now += seconds


class Scene:
    """What was fed, and what was written.

    Attributes:
      top: The folder that was fed.
      output: What was written.
      accepted: What the services have.
      events: The feeder's log.
    """

    def __init__(
        self, folder: Path, *, seed: int, seconds: float, clock: FastClock | None = None
    ) -> None:
        self.top, self.output, self._log = folder / "in", folder / "out", folder / "feeder.jsonl"
        staging = folder / "staging"
        self.top.mkdir(parents=True)
        staging.mkdir()
        load = Load(cameras=40, seconds=seconds)
        feeder = Feeder(
            self.top,
            staging,
            self._log,
            seed=seed,
            load=load,
            is_judged=lambda *_: True,
            clock=clock or FastClock(),
        )
        feeder.backlog(5)
        feeder.run()
        self.accepted: list[Accepted] = []
        self.settings = Settings(60, 240, 3, TARGETS, START)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    def violations(self) -> list[Violation]:
        recount = Recount(self.top, self.output, self.settings)
        return recount.violations(self.events, self.accepted)

    # ------------------------------------------------------------------ a job without faults

    def judge(self) -> None:
        """Writes the output."""
        valid: dict[tuple[str, int], list[tuple[Path, bytes, Look]]] = defaultdict(list)
        put = {event["path"]: event["at"] for event in self.events if event["what"] == "put"}
        for path in sorted(self.top.rglob("*.jpg")):
            data = path.read_bytes()
            relative = str(path.relative_to(self.top))
            here = truth(relative, data, put[relative])
            if here.reason is not None:
                self._invalid(path, data, here.reason)
            elif here.image_key is not None and here.look is not None:
                valid[here.image_key].append((path, data, here.look))
        for event in self.events:
            if event.get("judged"):
                look, serial = Look(*event["look"]), event["sha256"]
                valid.setdefault((event["camera"], event["taken"]), []).append(
                    (self.top / event["path"], self._lost(serial), look)
                )
        for image_key, files in valid.items():
            best = min(files, key=lambda file: ([-x for x in file[2].rank], images.digest(file[1])))
            self._stand(image_key, *best)
            for data in {file[1] for file in files} - {best[1]}:
                path = next(file[0] for file in files if file[1] == data)
                self._invalid(path, data, "duplicate")

    def _lost(self, sha256: str) -> bytes:
        """The bytes of a file that is gone, made again."""
        for event in self.events:
            if event["sha256"] == sha256:
                look = Look(*event["look"])
                for number in range(100_000):
                    data = images.jpeg(look, f"image {number}")
                    if images.digest(data) == sha256:
                        return data
        raise AssertionError(sha256)

    def _write(self, path: str, data: bytes | dict[str, Any]) -> Path:
        path = self.output / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode() + b"\n")
        return path

    def _invalid(self, path: Path, data: bytes, reason: str) -> None:
        name = f"{images.digest(str(path).encode())[:8]}-{path.name}"
        record = {"uri": str(path), "reason": reason, "sha256": images.digest(data)}
        self._write(f"invalid/{reason}/{name}", data)
        self._write(f"invalid/{reason}/{name}.json", record)

    def _stand(self, image_key: tuple[str, int], path: Path, data: bytes, look: Look) -> None:
        camera, taken = image_key
        detections = [{"label": label, "conf": score} for label, score in look.detections]
        threats = [{"label": label, "conf": score} for label, score in look.threats]
        image = {
            "id": camera,
            "timestamp": canonical(taken),
            "file": path.name,
            "sha256": images.digest(data),
            "detections": detections,
        }
        threat = {
            "threats": threats,
            "severity": look.severity,
            "is_threat": bool(threats),
        }
        self._write(f"validated/{camera}/{path.name}", data)
        self._write(f"detections/{camera}/{path.stem}.json", image)
        self._write(f"final/{camera}/{path.stem}.json", {**image, "threat": threat})
        first = next(
            event for event in self.events if (event["camera"], event["taken"]) == image_key
        )
        self._count(image_key, look, is_late=first["age"] in ("late", "1970"))
        if look.severity == "alert":
            self._alert(image_key)

    def _count(self, image_key: tuple[str, int], look: Look, *, is_late: bool) -> None:
        camera, taken = image_key
        start = taken // 60_000 * 60_000
        row = Counter(tally(look))
        path = f"late/{camera}/{taken}.json" if is_late else f"counts/{start}-{camera}.jsonl"
        path = self.output / path
        if path.exists():
            before = json.loads(path.read_text())
            row.update({name: before[name] for name in before if isinstance(before[name], int)})
            row.update({f"label {name}": n for name, n in before["by_label"].items()})
        labels = {name[6:]: number for name, number in row.items() if name.startswith("label ")}
        plain = {name: row[name] for name in ("images", "threat_images", "threats", "alerts")}
        times = {"window_start": canonical(start), "window_end": canonical(start + 60_000)}
        self._write(path, {"id": camera, **times, **plain, "by_label": labels})

    def _alert(self, image_key: tuple[str, int]) -> None:
        camera, taken = image_key
        key = alert_id(image_key)
        sent = sum(
            message.target == "guard"
            and message.body.get("id") == camera
            and message.body["minute"] == taken // 60_000
            for message in self.accepted
        )
        targets = []
        for target in TARGETS:
            if sent >= 3:
                digest = f"{camera}-{taken // 60_000}-{TARGETS.index(target)}"
                detail = f"reported in digest {digest}"
                targets.append({"target": target, "outcome": "suppressed", "detail": detail})
                self._digest(digest, camera, target)
            else:
                body = {"alert_id": key, "id": camera, "minute": taken // 60_000}
                self.accepted.append(Accepted(target, key, body))
                targets.append({"target": target, "outcome": "delivered", "detail": ""})
        self._write(f"alerts/{camera}/{key}.json", {"alert_id": key, "targets": targets})

    def _digest(self, key: str, camera: str, target: str) -> None:
        path = self.output / f"alerts/_digests/window/{key}.json"
        number = 1
        if path.exists():
            number += json.loads(path.read_text())["digest"]["alerts"]
        else:
            body = {"alert_id": key, "digest": {}, "minute": -1}
            self.accepted.append(Accepted(target, key, body))
        outcome = {"target": target, "outcome": "delivered", "detail": ""}
        digest = {"id": camera, "digest": {"alerts": number}, "targets": [outcome]}
        self._write(str(path.relative_to(self.output)), digest)


@contextmanager
def copy_of(scene: Scene) -> Iterator[Scene]:
    """Lets a test change the output, and puts it back."""
    kept = scene.output.with_name("kept")
    shutil.copytree(scene.output, kept)
    accepted = list(scene.accepted)
    try:
        yield scene
    finally:
        shutil.rmtree(scene.output)
        kept.rename(scene.output)
        scene.accepted = accepted
