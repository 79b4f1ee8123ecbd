"""SettleMoments: one picture for each camera and moment, in a stream.

A batch groups all files that claim one moment before it reads them. A stream can't wait: each
picture is judged when it comes, and what is known of its moment is kept as state until the moment's
window is beyond the allowed lateness. The picture with the smallest sha256 wins, as in a batch:
where it comes second, what was written and counted for the first is taken back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.coders import PickleCoder
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.utils.timestamp import Duration, Timestamp

from transforms import reasons, stores
from transforms.count_threats import CountedImage, event_time, is_too_late, window_of
from transforms.counters import count
from transforms.read_ahead import ReadAheadDoFn
from transforms.records import ImageFile, InvalidImage, JudgedImage, stem_of
from transforms.times import canonical_time

STANDS = "stands"
COUNTED = "counted"
LATE = "late"
DUPLICATE = "duplicate"


@dataclass(frozen=True)
class Standing:
    """What is remembered of the picture that stands for a moment.

    Attributes:
      sha256: Of its bytes.
      file: Its name.
      uri: Where it is.
      width: Pixels of the upright image.
      height: The same.
      counted: What it added to the counts; None where it came too late to be counted there.
    """

    sha256: str
    file: str
    uri: str
    width: int
    height: int
    counted: CountedImage | None


@dataclass(frozen=True)
class Duplicate:
    """Two pictures that claim the same camera and moment.

    Attributes:
      camera: The camera's id.
      timestamp: The moment, canonical.
      stands: The one that is kept.
      falls: The other one.
    """

    camera: str
    timestamp: str
    stands: Standing
    falls: Standing


def standing(judged: JudgedImage, *, late: bool) -> Standing:
    """What is to be remembered of a picture."""
    image = judged.image
    counted = None if late else CountedImage.of(judged)
    return Standing(image.sha256, image.file, image.uri, image.width, image.height, counted)


for _record in (Standing, Duplicate):
    beam.coders.registry.register_coder(_record, PickleCoder)


class _Settle(beam.DoFn):
    _STANDING = ReadModifyWriteStateSpec("standing", PickleCoder())
    _FORGET = TimerSpec("forget", TimeDomain.WATERMARK)

    def __init__(self, window_seconds: int, allowed_lateness_seconds: int) -> None:
        self._window_seconds = window_seconds
        self._lateness_seconds = allowed_lateness_seconds

    def process(
        self,
        element: tuple[str, JudgedImage],
        state: Any = beam.DoFn.StateParam(_STANDING),
        forget: Any = beam.DoFn.TimerParam(_FORGET),
    ) -> Iterator[Any]:
        _, judged = element
        image = judged.image
        late = is_too_late(
            image.timestamp, image.stream_time, self._window_seconds, self._lateness_seconds
        )
        new = standing(judged, late=late)
        old: Standing | None = state.read()
        if old is not None and old.sha256 == new.sha256:
            count("images.repeated")
            return
        if old is not None and old.sha256 < new.sha256:
            yield _tagged(DUPLICATE, Duplicate(image.id, image.timestamp, old, new))
            return
        state.write(new)
        forget.set(self._forget_at(image.timestamp))
        if old is not None:
            yield _tagged(DUPLICATE, Duplicate(image.id, image.timestamp, new, old))
            if old.counted is not None and not late:
                yield _tagged(COUNTED, old.counted.taken_back())
        if new.counted is not None:
            yield _tagged(COUNTED, new.counted)
        elif old is None:
            count("images.late")
            yield _tagged(LATE, judged)
        yield _tagged(STANDS, judged)

    def _forget_at(self, timestamp: str) -> Timestamp:
        end = event_time(canonical_time(window_of(timestamp, self._window_seconds)[1]))
        return end + Duration(self._lateness_seconds)

    @on_timer(_FORGET)
    def forget_moment(self, state: Any = beam.DoFn.StateParam(_STANDING)) -> None:
        """The moment's window takes no more pictures."""
        state.clear()


def _tagged(tag: str, value: Any) -> beam.pvalue.TaggedOutput:
    return beam.pvalue.TaggedOutput(tag, value)


class _TakeBack(ReadAheadDoFn):
    """Puts the stores right after a duplicate, and hands on the picture that fell."""

    def __init__(self, output: str) -> None:
        super().__init__(threads=4, max_waiting=16)
        self._output = output

    def work(self, element: Duplicate) -> InvalidImage:
        camera, stands, falls = element.camera, element.stands, element.falls
        if stands.file == falls.file:
            # Both were stored under one name: the one that stands is put back.
            self._put_back(camera, stands)
        else:
            stem = stem_of(falls.file)
            stores.delete(stores.validated_uri(self._output, camera, falls.file))
            if stem != stem_of(stands.file):
                stores.delete(stores.detections_uri(self._output, camera, stem))
                stores.delete(stores.final_uri(self._output, camera, stem))
        return InvalidImage(
            ImageFile(falls.uri, 0),
            reasons.DUPLICATE,
            reasons.duplicate_detail(camera, element.timestamp),
            width=falls.width,
            height=falls.height,
            sha256=falls.sha256,
        )

    def _put_back(self, camera: str, stands: Standing) -> None:
        try:
            data = stores.read_bytes(stands.uri)
        except Exception:  # It has left the input: what was stored last stays.
            return
        if hashlib.sha256(data).hexdigest() == stands.sha256:
            stores.write_bytes(stores.validated_uri(self._output, camera, stands.file), data)

    def outputs(self, result: InvalidImage) -> Iterator[InvalidImage]:
        yield result


class SettleMoments(beam.PTransform):
    """Lets one picture stand for each camera and moment, for as long as its window may change.

    Input: `PCollection[JudgedImage]`, in the global window. Output, by tag:

    - `stands`: `PCollection[JudgedImage]`, to be stored and told of. Where a picture with a
      smaller sha256 comes second, both come out, the second one last.
    - `counted`: `PCollection[CountedImage]`, what is added to the counts or taken back.
    - `late`: `PCollection[JudgedImage]`, those of `stands` that no window takes any more.
    - `duplicate`: `PCollection[Duplicate]`, for :class:`TakeBack`.

    Args:
      window_seconds: Length of a window.
      allowed_lateness_seconds: How long a window takes images after its end.
    """

    def __init__(self, *, window_seconds: int, allowed_lateness_seconds: int) -> None:
        super().__init__()
        self._settle = _Settle(window_seconds, allowed_lateness_seconds)

    def expand(self, judged: beam.PCollection[JudgedImage]) -> beam.pvalue.DoOutputsTuple:
        def by_moment(one: JudgedImage) -> tuple[str, JudgedImage]:
            return f"{one.image.id}\n{one.image.timestamp}", one

        keyed = judged | "ByMoment" >> beam.Map(by_moment).with_output_types(
            tuple[str, JudgedImage]
        )
        return keyed | "Settle" >> beam.ParDo(self._settle).with_outputs(
            STANDS, COUNTED, LATE, DUPLICATE
        )


class TakeBack(beam.PTransform):
    """Puts `validated/`, `detections/` and `final/` right after a duplicate.

    Input: `PCollection[Duplicate]`. Output: `PCollection[InvalidImage]`, the pictures that fell.

    Args:
      output: The job's output.
    """

    def __init__(self, output: str) -> None:
        super().__init__()
        self._output = output

    def expand(self, duplicates: beam.PCollection[Duplicate]) -> beam.PCollection[InvalidImage]:
        return duplicates | "PutRight" >> beam.ParDo(_TakeBack(self._output)).with_output_types(
            InvalidImage
        )
