"""Feeds a folder as 200 cameras, their file servers and their clocks do, all at random by a seed.

Everything that is done is written to a log first, a JSON object a line, from which the recount
works out what must have become of it.
"""

from __future__ import annotations

import heapq
import itertools
import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any

from soak import images
from soak.images import Look

Publish = Callable[[str, str, bytes], None]
"""Receives changes of whole files: `put`, `delete`, `touch` or `chmod`; the path, the bytes."""

Steps = Iterator[float]
"""What is done one after the other; each step says how many seconds to wait before the next."""

LATE_SECONDS = (700, 1500)
"""Age of images that come too late for their windows."""
AHEAD_SECONDS = 20 * 3600
FUTURE_SECONDS = 2 * 86400

ON_TIME, LATE, AHEAD, FUTURE, EPOCH = "on time", "late", "ahead", "future", "1970"


@dataclass(frozen=True)
class Load:
    """How much is fed.

    Attributes:
      cameras: How many there are; the last ten have something wrong.
      rate: Actions a second; most of them bring one image.
      seconds: For how long.
      storm: Images of one storm of a camera, within seconds.
    """

    cameras: int = 200
    rate: float = 4.0
    seconds: float = 300.0
    storm: int = 8


class Clock:
    """The time of this machine; tests give a faster one."""

    def now(self) -> float:
        """Unix time in seconds."""
        return time.time()

    def wait(self, seconds: float) -> None:
        """Passes so many seconds."""
        time.sleep(seconds)


@dataclass(frozen=True)
class _File:
    """A file that is whole in the folder.

    Attributes:
      path: Beneath the folder.
      camera: Its camera.
      taken: Its capture time in milliseconds of Unix time.
      data: Its bytes.
      look: What it shows; None: it is no image.
      age: One of :data:`ON_TIME` and its like.
      put: When it was whole.
    """

    path: str
    camera: str
    taken: int
    data: bytes
    look: Look | None
    age: str
    put: float


def _seconds_name(camera: str, taken: int) -> str:
    """Returns a name that says the capture time to the second."""
    capture_time = datetime.fromtimestamp(taken // 1000, timezone.utc)
    return f"{camera}_{capture_time:%Y%m%dT%H%M%SZ}.jpg"


class Feeder(threading.Thread):
    """Feeds in a thread.

    Args:
      top: The folder that the job watches; must be there.
      staging: A folder on the same disk, where folders are made that are moved in.
      log: The log.
      seed: Everything random follows from it.
      load: How much.
      is_judged: Whether an image is judged, and the job could not forget it if it crashed: camera,
        file name and sha256.
      publish: Where files are put besides; None: nowhere.
      clock: The time.

    Attributes:
      lock: Held while something is done to the folder; who holds it has the folder for himself.
    """

    def __init__(
        self,
        top: Path,
        staging: Path,
        log: Path,
        *,
        seed: int,
        load: Load,
        is_judged: Callable[[str, str, str], bool] = lambda *_: False,
        publish: Publish | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(daemon=True, name="feeder")
        self.lock = threading.Lock()
        self.error: BaseException | None = None
        self._top, self._staging, self._log = top, staging, log.open("a")
        self._random = random.Random(seed)
        self._load = load
        self._is_judged = is_judged
        self._publish = publish or (lambda *_: None)
        self._clock = clock or Clock()
        self._numbers = itertools.count(1)
        self._serials = itertools.count(1)
        self._due: list[tuple[float, int, Steps]] = []
        self._order = itertools.count()
        self._files: dict[str, _File] = {}
        self._busy: set[str] = set()
        self._taken: set[tuple[str, int]] = set()
        healthy = load.cameras - 10
        self._healthy = [f"cam-{number:03d}" for number in range(healthy)]
        (
            *self._storming,
            self._ahead,
            self._future,
            self._epoch,
            self._silent,
        ) = (f"cam-{number:03d}" for number in range(healthy, load.cameras))

    # ------------------------------------------------------------------ what is done when

    def backlog(self, images_: int) -> None:
        """Writes images before the job starts: they are its backlog."""
        for _ in range(images_):
            for _ in self._rename(self._new(self._camera())):
                pass
        for _ in self._rename(self._new(self._silent, look=images.PERSON)):
            pass

    def run(self) -> None:
        try:
            self._begin(self._arrivals(), 0.0)
            self._begin(self._folders(), 0.0)
            while self._due:
                due, _, steps = heapq.heappop(self._due)
                self._clock.wait(max(0.0, due - self._clock.now()))
                with self.lock:
                    pause = next(steps, None)
                if pause is not None:
                    self._begin(steps, pause)
        except BaseException as error:
            self.error = error
            raise
        finally:
            self._log.close()

    def _begin(self, steps: Steps, after: float) -> None:
        heapq.heappush(self._due, (self._clock.now() + after, next(self._order), steps))

    def _arrivals(self) -> Steps:
        started = self._clock.now()
        actions: list[tuple[float, Callable[[], Steps]]] = [
            (28, lambda: self._rename(self._new(self._camera()))),
            (14, lambda: self._write(self._new(self._camera()))),
            (10, lambda: self._write_slowly(self._new(self._camera()))),
            (6, lambda: self._pause_writing(self._new(self._camera()))),
            (3, lambda: self._empty_first(self._new(self._camera()))),
            (5, self._replace),
            (3, self._overwrite),
            (2, self._come_again),
            (4, self._touch),
            (4, self._chmod),
            (3, self._copy_elsewhere),
            (2, self._copy_by_another_name),
            (5, self._burst),
            (1, self._delete_soon),
            (2, self._delete_when_judged),
            (4, lambda: self._rename(self._late_one())),
            (0.7, lambda: self._rename(self._new(self._ahead, AHEAD))),
            (0.4, lambda: self._rename(self._new(self._future, FUTURE))),
            (1, lambda: self._rename(self._new(self._epoch, EPOCH))),
            (0.8, self._storm),
            (4, self._invalid),
            (0.3, self._move_within),
        ]
        weights = [weight for weight, _ in actions]
        for number in itertools.count(1):
            (action,) = self._random.choices(actions, weights)
            self._begin(action[1](), 0.0)
            next_one = started + number / self._load.rate
            if next_one > started + self._load.seconds:
                return
            yield max(0.0, next_one - self._clock.now())

    def _folders(self) -> Steps:
        """Makes folders at the start, with old dates, and moves one in now and then."""
        started, every = self._clock.now(), 40.0
        moves = range(1, max(2, int(self._load.seconds / every)))
        for number in moves:
            self._make_folder(f"moved-{number:03d}", started + number * every)
        for number in moves:
            yield max(0.0, started + number * every - self._clock.now())
            self._move_in(f"moved-{number:03d}")

    # ------------------------------------------------------------------ new images

    def _camera(self) -> str:
        return self._random.choice(self._healthy)

    def _new(self, camera: str, age: str = ON_TIME, look: Look | None = None) -> _File:
        """Returns an image that a camera has just taken, by its clock."""
        ahead = {AHEAD: AHEAD_SECONDS, FUTURE: FUTURE_SECONDS}.get(age, 0)
        now = self._clock.now()
        seconds = now - self._random.uniform(0, 3) + ahead
        if age == EPOCH:
            seconds = now % 100_000_000  # Since its battery died.
        if age == LATE:
            seconds = now - self._random.uniform(*LATE_SECONDS)
        return self._image(camera, int(seconds * 1000), age, look)

    def _late_one(self) -> _File:
        return self._new(self._camera(), LATE)

    def _image(self, camera: str, taken: int, age: str, look: Look | None = None) -> _File:
        while (camera, taken // 1000) in self._taken:  # Bursts are made on purpose.
            taken -= 1000
        self._taken.add((camera, taken // 1000))
        if look is None:
            (look,) = self._random.choices(images.LOOKS, (50, 12, 9, 12, 12, 5))
        name = f"{camera}_{taken:013d}.jpg"
        return _File(
            self._place(camera, name),
            camera,
            taken,
            self._bytes(look),
            look,
            age,
            self._clock.now(),
        )

    def _place(self, camera: str, name: str) -> str:
        number = int(camera[-3:])
        if number % 8 == 0:
            return name
        day = f"{datetime.fromtimestamp(self._clock.now(), timezone.utc):%Y%m%d}"
        layouts = (camera, f"{camera}/{day}", f"site-{number % 7}/{camera}")
        return f"{layouts[number % 3]}/{name}"

    def _bytes(self, look: Look) -> bytes:
        return images.jpeg(look, f"image {next(self._serials)}")

    def _path(self, relative: str) -> Path:
        path = self._top / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    # ------------------------------------------------------------------ ways of writing

    def _rename(self, file: _File) -> Steps:
        target = self._path(file.path)
        partial = target.with_name(f".{target.name}.part")
        partial.write_bytes(file.data)
        self._put(file, "renamed into place")
        os.replace(partial, target)
        return
        yield

    def _write(self, file: _File) -> Steps:
        self._put(file, "written at once")
        self._path(file.path).write_bytes(file.data)
        return
        yield

    def _in_parts(self, file: _File, how: str, parts: int, pause: Callable[[], float]) -> Steps:
        """Writes a file in parts, in place of what was there."""
        self._busy.add(file.path)
        self._note("part", file, how)
        step = len(file.data) // parts + 1
        with self._path(file.path).open("wb", buffering=0) as target:
            for start in range(0, len(file.data), step):
                if start:
                    yield pause()
                if start + step >= len(file.data):
                    self._put(file, how)
                target.write(file.data[start : start + step])
        self._busy.discard(file.path)

    def _write_slowly(self, file: _File) -> Steps:
        parts = self._random.randint(3, 6)
        return self._in_parts(
            file, "written slowly", parts, lambda: self._random.uniform(0.05, 0.5)
        )

    def _pause_writing(self, file: _File) -> Steps:
        return self._in_parts(file, "paused in writing", 2, lambda: self._random.uniform(2, 7))

    def _empty_first(self, file: _File) -> Steps:
        self._busy.add(file.path)
        self._note("part", file, "empty at first")
        target = self._path(file.path)
        target.touch()
        yield self._random.uniform(0.5, 5)
        self._put(file, "empty at first")
        target.write_bytes(file.data)
        self._busy.discard(file.path)

    # ------------------------------------------------------------------ what befalls files

    def _pick(self, *, within: float | None, ages: tuple[str, ...] = (ON_TIME,)) -> _File | None:
        """One of the images that are whole, and were put within so many seconds."""
        now = self._clock.now()
        files = [
            file
            for file in self._files.values()
            if file.path not in self._busy
            and file.look is not None
            and file.age in ages
            and (within is None or now - file.put <= within)
        ]
        return self._random.choice(files) if files else None

    def _newer(self, file: _File) -> _File:
        (look,) = self._random.choices(images.LOOKS, (40, 10, 10, 20, 15, 5))
        return replace(file, data=self._bytes(look), look=look, put=self._clock.now())

    def _replace(self) -> Steps:
        file = self._pick(within=60)
        return iter(()) if file is None else self._rename(self._newer(file))

    def _overwrite(self) -> Steps:
        file = self._pick(within=60)
        return iter(()) if file is None else self._write_slowly(self._newer(file))

    def _come_again(self) -> Steps:
        """Deletes an image and writes another under its name."""
        file = self._pick(within=60)
        if file is None:
            return
        self._remove(file, "to come again", judged=False)
        self._busy.add(file.path)
        yield self._random.uniform(0.2, 5)
        self._busy.discard(file.path)
        yield from self._rename(self._newer(file))

    def _touch(self) -> Steps:
        file = self._pick(within=None, ages=(ON_TIME, LATE, EPOCH))
        if file is not None:
            self._note("touch", file)
            os.utime(self._top / file.path)
        return
        yield

    def _chmod(self) -> Steps:
        file = self._pick(within=None, ages=(ON_TIME, LATE, EPOCH))
        if file is not None:
            self._note("chmod", file)
            path = self._top / file.path
            path.chmod(0o600 if path.stat().st_mode & 0o077 else 0o644)
        return
        yield

    def _copy_elsewhere(self) -> Steps:
        file = self._pick(within=120, ages=(ON_TIME, LATE))
        if file is None:
            return iter(())
        name = file.path.rsplit("/", 1)[-1]
        return self._rename(
            replace(file, path=f"copies-{self._random.randrange(5)}/{name}", put=self._clock.now())
        )

    def _copy_by_another_name(self) -> Steps:
        """Returns the same bytes, under another name of the same capture time."""
        file = self._pick(within=120)
        if file is None:
            return iter(())
        capture_time = datetime.fromtimestamp(file.taken / 1000, timezone.utc)
        name = f"{file.camera}_{capture_time:%Y-%m-%dT%H-%M-%S}.{file.taken % 1000:03d}Z.jpg"
        path = str(Path(file.path).with_name(name))
        return self._rename(replace(file, path=path, put=self._clock.now()))

    def _burst(self) -> Steps:
        """Yields two images of one camera and second: one name in two folders, or two names."""
        camera = self._camera()
        first = self._new(camera)
        taken = first.taken // 1000 * 1000
        first = replace(first, taken=taken, path=self._place(camera, f"{camera}_{taken:013d}.jpg"))
        second = self._newer(first)
        if self._random.random() < 0.5:
            second = replace(second, path=f"second/{camera}/{first.path.rsplit('/', 1)[-1]}")
        else:
            second = replace(second, path=self._place(camera, _seconds_name(camera, taken)))
        ways = (self._rename, self._write_slowly, self._write)
        yield from self._random.choice(ways)(first)
        yield self._random.choice((0.0, 0.0, self._random.uniform(0, 8)))
        yield from self._random.choice(ways)(second)

    def _delete_soon(self) -> Steps:
        file = self._new(self._camera())
        yield from self._write(file)
        self._busy.add(file.path)
        yield self._random.uniform(0, 4)
        self._remove(self._files[file.path], "soon", judged=False)

    def _delete_when_judged(self) -> Steps:
        file = self._new(self._camera())
        yield from self._rename(file)
        self._busy.add(file.path)
        name, sha256 = file.path.rsplit("/", 1)[-1], images.digest(file.data)
        for _ in range(60):
            yield 2.0
            if self._is_judged(file.camera, name, sha256):
                self._remove(self._files[file.path], "when it was judged", judged=True)
                return

    def _storm(self) -> Steps:
        """Many alerts of one camera within seconds, or of the one whose clock is ahead."""
        if self._random.random() < 0.15:
            camera, age = self._ahead, AHEAD
        else:
            camera, age = self._random.choice(self._storming), ON_TIME
        for _ in range(self._load.storm):
            yield from self._rename(self._new(camera, age, images.PERSON))
            yield self._random.uniform(0, 0.6)

    def _invalid(self) -> Steps:
        """Returns a file that is no image, or has no name for one."""
        camera = self._camera()
        file = self._new(camera, look=images.PERSON)
        folder, _, _ = file.path.rpartition("/")
        kind = self._random.randrange(5)
        if kind == 0:
            file = replace(file, path=f"{folder}/note-{next(self._serials)}.jpg".lstrip("/"))
        elif kind == 1:
            file = replace(file, path=f"{folder}/{camera}_yesterday-{file.taken}.jpg".lstrip("/"))
        elif kind == 2:
            file = replace(file, data=b"")
        elif kind == 3:
            file = replace(file, data=b"no image at all %d" % next(self._serials))
        else:
            file = replace(file, data=file.data[: len(file.data) * 2 // 3])
        return self._rename(replace(file, look=None))

    def _make_folder(self, name: str, at: float) -> None:
        """Makes a folder of images that will be moved in, all with the date of two days before."""
        folder = self._staging / name
        old = at - 2 * 86400
        for _ in range(self._random.randint(3, 10)):
            camera = self._camera()
            taken = int((at - self._random.uniform(0, 20)) * 1000)
            image = self._image(camera, taken, ON_TIME)
            beneath = self._random.choice(("", "inner/"))
            path = folder / f"{beneath}{image.path.rsplit('/', 1)[-1]}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image.data)
            os.utime(path, (old, old))
            relative = f"{name}/{path.relative_to(folder)}"
            self._files[f"staged {relative}"] = replace(image, path=relative)
            self._busy.add(relative)
        for made in (folder / "inner", folder):
            if made.is_dir():
                os.utime(made, (old, old))

    def _move_in(self, name: str) -> None:
        for key in [path for path in self._files if path.startswith(f"staged {name}/")]:
            file = self._files.pop(key)
            self._busy.discard(file.path)
            self._put(replace(file, put=self._clock.now()), "moved in with its folder")
        os.rename(self._staging / name, self._top / name)

    def _move_within(self) -> Steps:
        """Moves a folder that was moved in to another place beneath the top."""
        names = sorted(
            {path.split("/")[0] for path in self._files if path.startswith("moved-")}
            - {path.split("/")[0] for path in self._busy}
        )
        names = [name for name in names if not (self._top / "archive" / name).exists()]
        if not names:
            return
        name = self._random.choice(names)
        self._path("archive/x")
        for path in [path for path in self._files if path.startswith(f"{name}/")]:
            file = self._files.pop(path)
            self._note("delete", file, "moved with its folder", judged=False)
            self._put(replace(file, path=f"archive/{path}"), "moved with its folder")
        os.rename(self._top / name, self._top / "archive" / name)
        return
        yield

    # ------------------------------------------------------------------ the log

    def _put(self, file: _File, how: str) -> None:
        self._files[file.path] = replace(file, put=self._clock.now())
        self._note("put", file, how)

    def _remove(self, file: _File, how: str, *, judged: bool) -> None:
        self._note("delete", file, how, judged=judged)
        del self._files[file.path]
        self._busy.discard(file.path)
        (self._top / file.path).unlink()

    def _note(self, what: str, file: _File, how: str = "", **more: Any) -> None:
        look = None if file.look is None else [file.look.person, file.look.dog]
        _line(
            self._log,
            n=next(self._numbers),
            at=round(self._clock.now(), 3),
            what=what,
            path=file.path,
            camera=file.camera,
            taken=file.taken,
            age=file.age,
            sha256=images.digest(file.data),
            look=look,
            how=how,
            **more,
        )
        if what != "part":
            self._publish(what, file.path, file.data)


def _line(log: IO[str], **entry: Any) -> None:
    log.write(json.dumps(entry) + "\n")
    log.flush()
