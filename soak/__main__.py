"""`make soak ARGS="--minutes N --seed S"`: a stream that is fed and disturbed, then recounted.

A Flink of two TaskManagers, 200 cameras, a model whose answer is known, two alert services. While a
feeder brings images in every way that cameras and file servers have, a saboteur kills and breaks
what the stream depends on. At the end everything that was written is compared with what must have
been. Exit code 0: nothing differs. 1: what differs is reported, and everything is kept.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soak import figures, saboteur
from soak.bucket import NotifyingBucket, notifying_bucket
from soak.feeder import Feeder, Load
from soak.recount import RULES, Recount, Settings, Violation, canonical
from soak.saboteur import Saboteur
from soak.services import AlertService
from tests.flink.stream_job import StreamJob, flink_cluster, kill, wait_for
from transforms.alerting.target_clients import named_urls

WINDOW_SECONDS = 60
LATENESS_SECONDS = 240
LIMIT = 3
BACKLOG = 40
TASKMANAGERS = 2
_QUIET_SECONDS = 90.0
_WORKER_GRACE_SECONDS = 60.0  # The pool ends a worker after three looks, one every ten seconds.
_SHOWN = 20
_JAVA = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
# Disturbances come more often than in a year of a product's life.
_FLINK = {
    "restart-strategy.exponential-delay.attempts-before-reset-backoff": "1000000",
    "restart-strategy.exponential-delay.max-backoff": "5 s",
}


@dataclass(frozen=True)
class Options:
    """The options of a soak.

    Attributes:
      minutes: How long it is fed.
      seed: Of all that is random.
      load: What is fed.
      acts: What the saboteur does; None for everything.
      folder: Where everything goes.
      notifications: `kafka` for a bucket with a broker's notifications; None for a folder.
    """

    minutes: float
    seed: int
    load: Load
    acts: tuple[str, ...] | None
    folder: Path
    notifications: str | None = None


class Soak:
    """A stream, what feeds it, and what disturbs it.

    Args:
      options: The options of the soak.
      output: Where the job writes.
      disk: The folder of a disk that the output has for itself; None: it has none.
      bucket: What the job reads; None: the folder that is fed.
    """

    def __init__(
        self, options: Options, output: Path, disk: Path | None, bucket: NotifyingBucket | None
    ) -> None:
        self.options, self.output, self._disk, self._bucket = options, output, disk, bucket
        self.folder = options.folder
        self.top, self._staging = self.folder / "in", self.folder / "staging"
        for folder in (self.top, self._staging, self.folder / "logs"):
            folder.mkdir(parents=True, exist_ok=True)
        self.services = [
            AlertService(name, self._log(f"service-{name}.jsonl")) for name in ("guard", "hook")
        ]
        self.services[1].target = next(iter(named_urls([self.services[1].url])))
        self.feeder = Feeder(
            self.top,
            self._staging,
            self._log("feeder.jsonl"),
            seed=options.seed,
            load=options.load,
            is_judged=self._is_judged,
            publish=None if bucket is None else bucket.publish,
        )
        self.started = 0.0
        self.job: StreamJob | None = None
        self.cluster: Any = None
        self._lock = threading.Lock()  # Between who restarts the job and who asks it.

    def _log(self, name: str) -> Path:
        return self.folder / "logs" / name

    def _is_judged(self, camera: str, name: str, sha256: str) -> bool:
        """Returns whether an image has its verdict, and a later checkpoint contains both."""
        path = self.output / "final" / camera / f"{name.rsplit('.', 1)[0]}.json"
        try:
            stored = path.stat().st_mtime
            if json.loads(path.read_bytes())["sha256"] != sha256:
                return False
            return self._last_checkpoint() > stored
        except (OSError, ValueError):
            return False

    def _last_checkpoint(self) -> float:
        """Returns when the job's last completed checkpoint began, in Unix seconds; 0 for none."""
        job = self.job
        assert job is not None
        completed = job.checkpoints()["latest"]["completed"]
        return 0.0 if completed is None else float(completed["trigger_timestamp"]) / 1000

    # ------------------------------------------------------------------ the stream

    def run(self) -> tuple[list[Violation], list[str]]:
        """Runs it all; what differs, and what was measured."""
        self.cluster = flink_cluster.up(
            self.folder / "flink",
            rest_port=0,
            worker_pool_port=0,
            taskmanagers=TASKMANAGERS,
            slots=1,
            settings=_FLINK,
        )
        try:
            return self._run()
        finally:
            flink_cluster.down(self.folder / "flink")
            for service in self.services:
                service.stop()

    def _run(self) -> tuple[list[Violation], list[str]]:
        model = self.folder / "model"
        subprocess.run([sys.executable, "-m", "soak.model", model], check=True, capture_output=True)
        rules = RULES.format(guard=self.services[0].url, limit=LIMIT)
        (self.folder / "rules.yaml").write_text(rules)
        self.feeder.backlog(BACKLOG)
        self._submit()
        wait_for("the first verdicts", lambda: any((self.output / "final").glob("*/*.json")), 180)
        time.sleep(3)  # One more look, so that the stream's time has begun.
        self.started = time.time()
        sampler = figures.Sampler(self._log("samples.jsonl"), self._sample, 5.0)
        disturbs = Saboteur(
            self._acts(),
            self._log("saboteur.jsonl"),
            seed=self.options.seed,
            pause_seconds=(4, 12) if self.options.minutes <= 10 else (20, 70),
            recovered=self._recovered,
        )
        for thread in (sampler, self.feeder, disturbs):
            thread.start()
        self.feeder.join()
        if self._bucket is not None:
            self._bucket.flush()
        disturbs.ended.set()
        disturbs.join()
        violations = self._settled(sampler)
        for thread in (self.feeder, disturbs):
            if thread.error is not None:
                what = f"the {thread.name} ended"
                violations.append(Violation(what, "", f"{thread.error!r}"))
        if self.options.minutes >= 20:
            violations += [
                Violation("not flat", *failure) for failure in figures.not_flat(sampler.samples)
            ]
        return violations, self._figures(sampler.samples, disturbs)

    def _submit(self, *more: str) -> None:
        source = self._address or self.top
        bucket_options = () if self._bucket is None else self._bucket.options
        self.job = StreamJob(
            self.cluster,
            self._log("submitted.log"),
            *("--input", source, "--output", self.output, "--model", self.folder / "model"),
            *("--rules", self.folder / "rules.yaml", "--alert_url", self.services[1].url),
            *("--poll_interval_seconds", "2", "--early_firing_seconds", "10"),
            *("--window_seconds", str(WINDOW_SECONDS)),
            *("--allowed_lateness_seconds", str(LATENESS_SECONDS), *bucket_options, *more),
        )

    def _settled(self, sampler: figures.Sampler) -> list[Violation]:
        """Returns what differs once nothing changes any more, or nothing differs; then the job is
        ended.
        """
        recount = self._recount()
        before, since = recount.progress(), time.monotonic()
        while True:
            if not self._violations(recount):
                break
            progress = recount.progress()
            if progress != before:
                before, since = progress, time.monotonic()
            if time.monotonic() - since > _QUIET_SECONDS:
                break
            time.sleep(5)
        assert self.job is not None
        sampler.ended.set()
        sampler.join()
        violations = [
            Violation("a Python worker was left behind", "", f"process {pid} serves no TaskManager")
            for pid in left_behind(self._worker_pids)
        ]
        try:
            self.job.stop_with_savepoint(self.folder / "savepoints")
        except Exception as error:  # It is reported with all the rest.
            violations.append(Violation("the job could not be stopped", "", repr(error)[:2000]))
            with contextlib.suppress(Exception):
                self.job.cancel()
        return [*self._violations(recount), *violations]

    def _recount(self) -> Recount:
        targets = tuple(service.target for service in self.services)
        settings = Settings(WINDOW_SECONDS, LATENESS_SECONDS, LIMIT, targets, self.started)
        return Recount(self.top, self.output, settings, self._address)

    @property
    def _address(self) -> str | None:
        return None if self._bucket is None else self._bucket.address

    def _violations(self, recount: Recount) -> list[Violation]:
        events = self.events()
        accepted = [message for service in self.services for message in list(service.accepted)]
        return recount.violations(events, accepted)

    def events(self) -> list[dict[str, Any]]:
        """Returns the feeder's log."""
        lines = self._log("feeder.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    # ------------------------------------------------------------------ what disturbs it

    def _acts(self) -> dict[str, saboteur.Act]:
        acts: dict[str, saboteur.Act] = {
            "a Python worker is killed": saboteur.kill_one(self._worker_pids),
            "the workers' pool is killed": lambda _: kill(self.cluster, "workers"),
            "a TaskManager is killed": lambda chance: kill(
                self.cluster, f"taskmanager-{chance.randint(1, 2)}"
            ),
            "an alert service is down": saboteur.service_down(self.services),
            "alert services answer 503": saboteur.service_answers(self.services, "503"),
            "alert services answer 429": saboteur.service_answers(self.services, "429"),
            "stopped, and on from its savepoint": lambda _: self._from_savepoint(),
        }
        if self._bucket is None:
            acts["the input is away"] = saboteur.move_away(self.top, self.feeder.lock)
        else:
            acts["the broker is killed"] = self._bucket.kill_broker
            acts["the store answers 503"] = self._bucket.refuse
        if self._disk is not None:
            acts["the disk is full"] = saboteur.fill_disk(self._disk)
        wanted = self.options.acts
        if wanted is None:
            return acts
        return {
            name: act
            for name, act in acts.items()
            if any(part_of_name in name for part_of_name in wanted)
        } or {"nothing": lambda _: None}

    def _from_savepoint(self) -> None:
        assert self.job is not None
        with self._lock:
            savepoint = self.job.stop_with_savepoint(self.folder / "savepoints")
            self._submit("--savepoint_path", savepoint)

    def _recovered(self) -> None:
        """Waits until every task of the job runs, and for one more checkpoint."""
        job = self.job
        assert job is not None

        def runs() -> bool:
            try:
                answer = self.cluster.get(f"/jobs/{job.id}")
            except OSError:
                return False
            if answer["state"] in ("FAILED", "CANCELED", "FINISHED"):
                raise RuntimeError(f"the job is {answer['state']}")
            return all(vertex["status"] == "RUNNING" for vertex in answer["vertices"])

        def completed() -> int:
            return int(job.checkpoints()["counts"]["completed"])

        time.sleep(3)  # A dead process is noticed when its connection breaks.
        wait_for("the job runs again", runs, 180)
        before = completed()
        wait_for("a checkpoint", lambda: completed() > before, 180)

    # ------------------------------------------------------------------ what is measured

    def _worker_pids(self) -> list[int]:
        mark = f"--beam_pipeline.cluster={self.folder / 'flink'}"
        pids = []
        for name in os.listdir("/proc"):
            if name.isdecimal():
                with contextlib.suppress(OSError):
                    words = Path(f"/proc/{name}/cmdline").read_text(errors="replace").split("\0")
                    if mark in words and any("sdk_worker_main" in word for word in words):
                        pids.append(int(name))
        return pids

    def _sample(self) -> Mapping[str, Any]:
        with self._lock:
            job = self.job
            assert job is not None
            checkpoint = job.checkpoints()["latest"]["completed"] or {}
            restarts = self.cluster.get(f"/jobs/{job.id}/metrics?get=numRestarts")
        pids = self.cluster.pids()
        return {
            "state": checkpoint.get("state_size"),
            "restarts": restarts[0]["value"] if restarts else None,
            "workers": {pid: figures.resident(pid) for pid in self._worker_pids()},
            "taskmanagers": {
                pid: figures.resident(pid) for name, pid in pids.items() if "taskm" in name
            },
            "jobmanager": {pids["jobmanager"]: figures.resident(pids["jobmanager"])},
            "accepted": sum(len(service.accepted) for service in self.services),
        }

    def _figures(self, samples: Sequence[Mapping[str, Any]], disturbs: Saboteur) -> list[str]:
        events = self.events()
        puts = Counter(event["how"] for event in events if event["what"] == "put")
        others = Counter(event["what"] for event in events if event["what"] in ("touch", "chmod"))
        done = Counter(act["act"] for act in disturbs.done)
        messages = sum(len(service.accepted) for service in self.services)
        different = sum(
            len({message.key for message in service.accepted}) for service in self.services
        )
        finals = sum(1 for _ in (self.output / "final").glob("*/*.json"))
        invalid = Counter(
            record.parent.name for record in (self.output / "invalid").glob("*/*.json")
        )
        late = sum(1 for _ in (self.output / "late").glob("*/*.json"))
        restarts = max((int(sample["restarts"] or 0) for sample in samples), default=0)

        def counts_text(counted: Mapping[str, int]) -> str:
            return ", ".join(f"{name} {number}" for name, number in sorted(counted.items()))

        return [
            f"fed: {sum(puts.values())} files ({counts_text(puts)}); {counts_text(others)}",
            f"verdicts: {finals}, of them late {late}; invalid: {counts_text(invalid)}",
            f"messages taken: {messages}, {messages - different} of them once more under the "
            f"same id; refused: {sum(service.refused for service in self.services)}",
            f"disturbed: {counts_text(done)}; restarts of the last job: {restarts}",
            "",
            *figures.table(samples),
        ]


def left_behind(
    worker_pids: Callable[[], Sequence[int]], seconds: float = _WORKER_GRACE_SECONDS
) -> list[int]:
    """The workers that are more than one for each TaskManager, once the pool has had its time to
    end those whose TaskManager is gone.

    Args:
      worker_pids: Lists the workers that run.
      seconds: How long the pool may take.
    """
    deadline = time.monotonic() + seconds
    while len(pids := sorted(worker_pids(), key=figures.resident)) > TASKMANAGERS:
        if time.monotonic() > deadline:
            break
        time.sleep(min(1.0, seconds / 10))
    return pids[:-TASKMANAGERS]


def report(
    soak: Soak, violations: Sequence[Violation], measured: Sequence[str], command: str
) -> str:
    """Returns what a person reads: what differs, where, and what the feeder did there."""
    events = soak.events()
    by_second: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for event in events:
        by_second.setdefault((event["camera"], event["taken"]), []).append(event)
    acts = soak.folder / "logs" / "saboteur.jsonl"
    disturbed = [json.loads(line) for line in acts.read_text().splitlines()] if (
        acts.exists()) else []  # fmt: skip
    lines = [f"# {command}", "", *measured, ""]
    for kind, number in sorted(Counter(violation.what for violation in violations).items()):
        lines.append(f"## {number} times: {kind}")
        for violation in [violation for violation in violations if violation.what == kind][:_SHOWN]:
            lines += ["", f"- {violation.where}: {violation.why}"]
            for image_key in violation.image_keys[:4]:
                for done in by_second.get(image_key, ()):
                    lines.append(f"  - {_recent_events(done, disturbed)}")
        lines.append("")
    lines.append(
        f"{len(violations)} violations; everything lies in {soak.folder}"
        if violations
        else "nothing differs"
    )
    return "\n".join(lines)


def _recent_events(event: Mapping[str, Any], disturbed: Sequence[Mapping[str, Any]]) -> str:
    at = canonical(int(event["at"] * 1000))
    during = [
        disturbance["act"]
        for disturbance in disturbed
        if disturbance["begun"] - 20 <= event["at"] <= disturbance["ended"] + 5
    ]
    beside = f" ({', '.join(during)})" if during else ""
    words = (event["what"], event["path"], event["sha256"][:12], event["how"], event["age"])
    return f"{at} {' '.join(words)}{beside}"


def _options(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="(%(default)s)")
    parser.add_argument("--seed", type=int, help="(a new one)")
    parser.add_argument("--cameras", type=int, default=200, help="(%(default)s)")
    parser.add_argument("--rate", type=float, default=4.0, help="actions a second (%(default)s)")
    parser.add_argument(
        "--act", action="append", metavar="WORDS", help="only disturb by what has these words"
    )
    parser.add_argument(
        "--notifications", choices=["kafka"], help="a bucket, and a broker with its notifications"
    )
    parser.add_argument("--folder", type=Path, help="where everything goes (a new one)")
    args = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(1_000_000) if args.seed is None else args.seed
    load = Load(cameras=args.cameras, rate=args.rate, seconds=args.minutes * 60)
    folder = args.folder or Path(tempfile.mkdtemp(prefix=f"soak-{seed}-"))
    folder.mkdir(parents=True, exist_ok=True)
    acts = None if args.act is None else tuple(args.act)
    return Options(args.minutes, seed, load, acts, folder.resolve(), args.notifications)


@contextlib.contextmanager
def _disk(folder: Path, minutes: float) -> Iterator[tuple[Path, Path | None]]:
    """The output's folder, on a small disk of its own where one can be mounted; what is on it is
    copied beside it at the end."""
    mount, kept = folder / "disk", folder / "out"
    mount.mkdir()
    with saboteur.small_disk(mount, 200 + int(12 * minutes)) as mounted:
        if not mounted:
            print("no disk can be mounted here: a full one is not tried", file=sys.stderr)
        try:
            yield mount / "out", mount if mounted else None
        finally:
            if mounted and (mount / "out").exists():
                shutil.copytree(mount / "out", kept)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a soak; returns the exit code."""
    os.environ.setdefault("JDK_JAVA_OPTIONS", _JAVA)
    options = _options(arguments)
    command = f"python -m soak --minutes {options.minutes:g} --seed {options.seed}"
    print(f"{command}, in {options.folder}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # Nothing is left running.
    with contextlib.ExitStack() as stack:
        output, disk = stack.enter_context(_disk(options.folder, options.minutes))
        bucket = None
        if options.notifications is not None:
            bucket = stack.enter_context(notifying_bucket(options.folder / "kafka"))
        soak = Soak(options, output, disk, bucket)
        violations, measured = soak.run()
        text = report(soak, violations, measured, command)
    print(text, flush=True)
    (options.folder / "report.md").write_text(f"{text}\n")
    if not violations:
        shutil.rmtree(options.folder)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
