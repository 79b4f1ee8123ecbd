"""ForgetEarlierVerdicts: deletes verdicts of earlier runs under other file names.

A batch knows all files of its input, and decides again which image of a capture time wins. It
overwrites what an earlier run has stored under the same name. If the image has another name now (a
renamed copy, or a camera that writes times in another form), the old verdict would stay beside the
new one, as a second image of one capture time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam

from transforms.records.file_names import InvalidNameError, parse_name
from transforms.records.images import JudgedImage
from transforms.records.times import canonical_time
from transforms.repositories import forget_valid, read_final
from transforms.storage import stores

_WINNERS, _EARLIER = "winners", "earlier"


def earlier_verdicts(output: str) -> Iterator[tuple[str, str]]:
    """Lists the verdicts of an output, and what a stream has stored of capture times.

    Yields:
      The camera and capture time as one key, and the stem of the verdict, or the address of what a
      stream has stored: its state, a spare copy, or the count row of an image that was too late for
      its window.

    Raises:
      OSError: The output can't be listed.
    """
    known = stores.known_folder(output).rpartition("/")[2]
    final = stores.final_folder(output)
    for folder in (final, stores.late_folder(output)):
        for file in stores.list_beneath(folder):
            *_, above, camera, name = file.path.split("/")
            stem, _, extension = name.rpartition(".")
            file_name = f"{camera}_{stem.partition('_')[0]}" if above == known else stem
            try:
                camera, capture_time = parse_name(f"{file_name}.jpg")
            except InvalidNameError:
                continue  # The job has not written it.
            is_verdict = folder == final
            if is_verdict or extension in ("json", "state", "jpg", "verdict"):
                key = f"{camera}\n{canonical_time(capture_time)}"
                yield key, stem if is_verdict else file.path


class _Forget(beam.DoFn):
    """Deletes the earlier verdicts of a capture time that has a valid image in this run.

    The image is in the counts of this run, so that it has no count row of its own any more.
    """

    def __init__(self, output: str) -> None:
        self._output = output

    def process(self, element: tuple[str, dict[str, Iterable[str]]]) -> None:
        key, stems = element
        camera, _ = key.split("\n")
        winner_stems = set(stems[_WINNERS])
        if not winner_stems:
            return  # Without a valid image in the input, the earlier verdict is kept.
        for earlier in sorted(set(stems[_EARLIER]) - winner_stems):
            if "/" in earlier:  # The address of what a stream has stored.
                stores.delete(earlier)
                continue
            judged = read_final(stores.final_uri(self._output, camera, earlier))
            if judged is not None:
                forget_valid(self._output, camera, judged.image.uri, judged.image.stored_name)


class ForgetEarlierVerdicts(beam.PTransform):
    """Deletes verdicts of earlier runs that this run replaces under other file names.

    Input: `PCollection[JudgedImage]`, the winners.

    Args:
      output: The job's output.
    """

    def __init__(self, output: str) -> None:
        super().__init__()
        self._output = output

    def expand(self, winners: beam.PCollection[JudgedImage]) -> beam.PCollection[Any]:
        keyed_stem = tuple[str, str]

        def key_stem(judged: JudgedImage) -> tuple[str, str]:
            return f"{judged.image.id}\n{judged.image.timestamp}", judged.image.stem

        earlier = (
            winners.pipeline
            | "Output" >> beam.Create([self._output])
            | "List" >> beam.FlatMap(earlier_verdicts).with_output_types(keyed_stem)
        )
        stems = winners | "Names" >> beam.Map(key_stem).with_output_types(keyed_stem)
        return (
            {_WINNERS: stems, _EARLIER: earlier}
            | "Together" >> beam.CoGroupByKey()
            | "Forget" >> beam.ParDo(_Forget(self._output))
        )
