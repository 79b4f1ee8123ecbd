"""WatchImages: the files that appear under `--input`, for as long as the job runs.

Beam's own `MatchContinuously` keeps the name of every file that it has ever seen in state, so that
checkpoints grow with history. This source, a splittable DoFn, keeps what it saw lately: a file is
new when it has changed since the newest change seen, less an overlap, and is not among those
remembered from within the overlap. On local disks the time of change is the inode's (`st_ctime`),
which a rename moves on too, so that a file which is moved in with an old date is seen.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import re
import stat
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Timestamp

from beam_pipeline.endless import GRACE_SECONDS, EndlessProvider, pause_of
from beam_pipeline.sources import glob_of, match_remote
from transforms.counters import count
from transforms.records import ImageFile
from transforms.stores import is_local
from transforms.text import one_line
from transforms.times import canonical_time, from_unix

_LOGGER = logging.getLogger(__name__)

SETTLE_SECONDS = 1.0
"""How long a local file must not have changed before it is taken for whole."""
TEMPORARY_SETTLE_SECONDS = 3600.0
"""The same for a name that programs give to files which they will rename."""
LOCAL_OVERLAP_SECONDS = 90.0
"""A change that much older than the newest one seen may still be news: NFS shows files up to a
minute late."""
REMOTE_OVERLAP_SECONDS = 900.0
"""The same for object stores, which date a large upload by its beginning."""
SKIP_FOLDERS_AFTER_SECONDS = 3600.0
"""A folder in which nothing came or went for so long is not listed again."""
MOST_AT_ONCE = 2000
"""Files that are handed on before the source's state is kept."""

_TEMPORARY = re.compile(r"\..*|.*\.(?:tmp|temp|part|partial|filepart|crdownload|upload)|.*~", re.I)


@dataclass(frozen=True)
class Listed:
    """A file as a listing shows it.

    Attributes:
      uri: Where it is.
      size_bytes: Its size.
      changed: When it changed last, in seconds of Unix time.
    """

    uri: str
    size_bytes: int
    changed: float

    @property
    def version(self) -> bytes:
        """Eight bytes that differ where the file has changed."""
        text = f"{self.uri}\n{self.size_bytes}\n{self.changed}"
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8]


@dataclass(frozen=True)
class Seen:
    """What the source must not forget; its size follows the rate of pictures, not their number.

    Attributes:
      newest: The newest change of a file that was handed on, in seconds of Unix time.
      lately: Change and version of the files handed on whose change is within the overlap.
      waiting: Files that may not be whole yet: address, version, and when that was seen first.
    """

    newest: float = 0.0
    lately: tuple[tuple[float, bytes], ...] = ()
    waiting: tuple[tuple[str, bytes, float], ...] = ()


def choose(
    seen: Seen,
    listed: Iterable[Listed],
    *,
    now: float,
    settle: float,
    overlap: float,
    most: int = MOST_AT_ONCE,
) -> tuple[list[Listed], Seen, bool]:
    """The files to hand on, what is then seen, and whether there are more of them.

    Args:
      seen: What was seen before.
      listed: All files, or all but those that have not changed for long.
      now: Unix time in seconds.
      settle: Seconds that a file must not have changed; 0 where files appear whole.
      overlap: Seconds that a change may be older than the newest and still be news.
      most: Files to hand on at once; the ones that changed first come first.
    """
    known = {version for _, version in seen.lately}
    waited = {uri: (version, since) for uri, version, since in seen.waiting}
    ready, waiting = [], []
    for one in listed:
        if one.changed <= seen.newest - overlap and one.uri not in waited:
            continue
        version = one.version
        if version in known:
            continue
        before = waited.get(one.uri)
        since = before[1] if before is not None and before[0] == version else now
        name = one.uri.rsplit("/", 1)[-1]
        needed = TEMPORARY_SETTLE_SECONDS if settle and _TEMPORARY.fullmatch(name) else settle
        if max(now - one.changed, now - since) >= needed:
            ready.append(one)
        else:
            waiting.append((one.uri, version, since))
    ready.sort(key=lambda one: (one.changed, one.uri))
    more = len(ready) > most
    if more:  # Those left out are news again at the next look, unless only `waiting` knows them.
        waiting += [(one.uri, one.version, now) for one in ready[most:] if one.uri in waited]
        ready = ready[:most]
    # A change dated ahead of the clock must not make all others look old.
    newest = max([seen.newest, *(min(one.changed, now) for one in ready)])
    lately = (*seen.lately, *((one.changed, one.version) for one in ready))
    kept = tuple((changed, version) for changed, version in lately if changed > newest - overlap)
    return ready, Seen(newest, kept, tuple(waiting)), more


class _LocalFolders:
    """Lists a folder and all beneath it again and again, passing over folders long unchanged.

    A folder that is moved in brings files whose own time of change is old: what is in a folder
    counts as changed when the folder was seen first, but for those that the first listing sees.
    """

    def __init__(self, source: str) -> None:
        top, matches = glob_of(source)
        self._top = top
        self._matches = matches
        self._folders: dict[str, tuple[float, tuple[str, ...]]] = {}
        self._came: dict[str, float] = {}
        self._has_listed = False
        self._unreadable: set[str] = set()

    def list(self, now: float) -> Iterator[Listed]:
        pending = [self._top]
        while pending:
            folder = pending.pop()
            try:
                changed = os.stat(folder).st_mtime
                before, folders = self._folders.get(folder, (None, ()))
                if before is None:
                    self._came[folder] = now if self._has_listed else 0.0
                if before != changed or now - changed < SKIP_FOLDERS_AFTER_SECONDS:
                    found = list(os.scandir(folder))
                    folders = tuple(one.path for one in found if one.is_dir(follow_symlinks=False))
                    self._folders[folder] = changed, folders
                    yield from self._files(found, self._came[folder])
            except (FileNotFoundError, NotADirectoryError):
                self._folders.pop(folder, None)  # It went since its parent was listed.
                continue
            except PermissionError as error:
                if folder == self._top:
                    raise
                if folder not in self._unreadable:
                    self._unreadable.add(folder)
                    _LOGGER.error("%s can't be listed: %s", folder, error.strerror)
                continue
            self._unreadable.discard(folder)
            pending += folders
        self._has_listed = True

    def _files(self, found: Iterable[os.DirEntry[str]], came: float) -> Iterator[Listed]:
        for one in found:
            if self._matches is not None and not self._matches(one.path):
                continue
            try:
                status = one.stat()
            except OSError:  # It went, or is a link that leads nowhere.
                continue
            if stat.S_ISREG(status.st_mode):  # To read a pipe or a device would wait for ever.
                changed = max(status.st_ctime, status.st_mtime, came)
                yield Listed(one.path, status.st_size, changed)


class _RemoteFolder:
    """Lists everything under an address of an object store."""

    def __init__(self, source: str) -> None:
        self._source = source

    def list(self, now: float) -> Iterator[Listed]:
        for one in match_remote(self._source):
            yield Listed(one.path, one.size_in_bytes, one.last_updated_in_seconds or now)


class _SeenCoder(beam.coders.Coder):
    """Sixteen bytes for each file that is remembered."""

    _ONE = struct.Struct("<d8s")

    def encode(self, seen: Seen | None) -> bytes:
        if seen is None:
            return b""
        lately = b"".join(self._ONE.pack(*one) for one in seen.lately)
        return pickle.dumps((seen.newest, lately, seen.waiting))

    def decode(self, encoded: bytes) -> Seen | None:
        if not encoded:
            return None
        newest, lately, waiting = pickle.loads(encoded)
        return Seen(newest, tuple(self._ONE.iter_unpack(lately)), waiting)

    def is_deterministic(self) -> bool:
        return True


_RESTRICTION = beam.DoFn.RestrictionParam(EndlessProvider(Seen(), _SeenCoder()))
_WATERMARK = beam.DoFn.WatermarkEstimatorParam(ManualWatermarkEstimator.default_provider())


class _Watch(beam.DoFn):
    def __init__(self, source: str, poll_seconds: float, clock: Callable[[], float]) -> None:
        self._source = source
        self._poll_seconds = poll_seconds
        self._clock = clock

    def setup(self) -> None:
        local = is_local(self._source)
        self._folder = _LocalFolders(self._source) if local else _RemoteFolder(self._source)
        self._settle = SETTLE_SECONDS if local else 0.0
        self._overlap = LOCAL_OVERLAP_SECONDS if local else REMOTE_OVERLAP_SECONDS

    @beam.DoFn.unbounded_per_element()
    def process(
        self,
        element: Any,
        tracker: Any = _RESTRICTION,
        estimator: Any = _WATERMARK,
    ) -> Iterator[Any]:
        now = self._clock()
        try:
            ready, seen, more = choose(
                tracker.current_restriction(),
                self._folder.list(now),
                now=now,
                settle=self._settle,
                overlap=self._overlap,
            )
        except Exception as error:  # Each store's client has its own kinds of error.
            count("source.listing_failed")
            _LOGGER.error("--input %s can't be listed: %s", self._source, one_line(error))
            tracker.defer_remainder(pause_of(self._poll_seconds))
            return
        if not tracker.try_claim(seen):
            return
        reached = estimator.current_watermark()
        before = None if reached is None else canonical_time(from_unix(float(reached)))
        for one in ready:
            yield TimestampedValue(
                ImageFile(one.uri, one.size_bytes, stream_time=before), Timestamp(now)
            )
        if not more:  # What was there is on its way; now event time may go on.
            on = Timestamp(now - GRACE_SECONDS)
            estimator.set_watermark(on if reached is None else max(on, reached))
        pause = 0.0 if more else self._poll_seconds
        if seen.waiting:
            pause = min(pause, SETTLE_SECONDS)
        tracker.defer_remainder(pause_of(pause))


class WatchImages(beam.PTransform):
    """Finds files as they appear, each once, for as long as the job runs.

    A file that is being written is left alone until it has not changed for a second; one that
    changes after it was handed on is handed on again. Event time follows the clock, ten seconds
    behind, once all that was there is handed on: neither a camera that falls silent nor one whose
    clock is wrong moves it.

    Output: `PCollection[ImageFile]`, unbounded.

    Args:
      source: A file, directory or glob, as :func:`beam_pipeline.sources.list_images` takes it.
      poll_seconds: Between two looks.
      clock: Gives Unix time in seconds.
    """

    def __init__(
        self, source: str, *, poll_seconds: float = 5.0, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__()
        if poll_seconds <= 0:
            raise ValueError(f"poll_seconds is {poll_seconds}; it must be more than 0")
        self._watch = _Watch(source, poll_seconds, clock)

    def expand(self, begin: beam.pvalue.PBegin) -> beam.PCollection[ImageFile]:
        return (
            begin
            | "Once" >> beam.Impulse()
            | "Watch" >> beam.ParDo(self._watch).with_output_types(ImageFile)
        )
