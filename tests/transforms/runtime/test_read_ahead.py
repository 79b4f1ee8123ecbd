import threading
import time

import apache_beam as beam
import pytest
from apache_beam.transforms.window import FixedWindows, TimestampedValue

from transforms.runtime.read_ahead import ReadAheadDoFn


class Recording(ReadAheadDoFn):
    """Records how many elements are worked on at once; a number takes that many ms."""

    def __init__(self, **options):
        super().__init__(**options)
        self.lock = threading.Lock()
        self.begun, self.ended = [], []
        self.at_once = self.most_at_once = 0

    def work(self, element):
        with self.lock:
            self.begun.append(element)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(element / 1000)
        with self.lock:
            self.at_once -= 1
            self.ended.append(element)
        if element == 13:
            raise OSError("13 can't be read")
        return element

    def outputs(self, result):
        yield result

    def weight(self, element):
        return element


@pytest.fixture
def recording():
    do_fns = []

    def make(**options):
        do_fn = Recording(**{"threads": 3, "max_waiting": 5, **options})
        do_fns.append(do_fn)
        do_fn.setup()
        do_fn.start_bundle()
        return do_fn

    yield make
    for do_fn in do_fns:
        do_fn.teardown()


def processed(do_fn, element):
    return [output.value for output in do_fn.process(element, timestamp=0, window=None)]


def test_outputs_keep_the_order_of_the_elements_even_if_later_ones_finish_first(recording):
    do_fn = recording()
    elements = [40, 1, 30, 2, 20, 3, 10, 4]
    out = [value for element in elements for value in processed(do_fn, element)]
    out += [output.value for output in do_fn.finish_bundle()]
    assert out == elements
    assert do_fn.ended != elements
    assert 1 < do_fn.most_at_once <= 3


@pytest.mark.parametrize("max_waiting", [1, 2, 5])
def test_the_number_of_waiting_elements_is_bounded(recording, max_waiting):
    do_fn = recording(max_waiting=max_waiting, threads=8)
    emitted = 0
    for number in range(1, 12):
        emitted += len(processed(do_fn, 1))
        assert number - emitted <= max_waiting
        assert len(do_fn.begun) <= number
    emitted += len(list(do_fn.finish_bundle()))
    assert emitted == 11


@pytest.mark.parametrize(
    ("weights", "emitted"),
    [
        ([50, 50, 1], [0, 0, 1]),
        ([60, 50], [0, 1]),
        ([1, 2, 3, 4], [0, 0, 0, 0]),
        ([400, 1], [0, 1]),  # An element that is larger than the bound passes, alone.
        ([10, 400], [0, 1]),
    ],
)
def test_the_waiting_bytes_are_bounded(recording, weights, emitted):
    do_fn = recording(max_waiting_bytes=100)
    assert [len(processed(do_fn, weight)) for weight in weights] == emitted
    assert len(list(do_fn.finish_bundle())) == len(weights) - sum(emitted)


def test_an_error_fails_the_bundle_and_stops_its_work(recording):
    do_fn = recording(threads=2, max_waiting=8)
    for element in (13, 60, 50, 51, 52):
        assert processed(do_fn, element) == []
    with pytest.raises(OSError, match="13 can't be read"):
        list(do_fn.finish_bundle())
    assert do_fn.at_once == 0
    begun = list(do_fn.begun)
    assert len(begun) < 5  # The others were never begun.
    time.sleep(0.1)
    assert do_fn.begun == begun
    do_fn.start_bundle()
    assert processed(do_fn, 5) == []
    assert [output.value for output in do_fn.finish_bundle()] == [5]


class Doubling(ReadAheadDoFn):
    """Yields each number, and its double with the tag `double`."""

    def work(self, element):
        if element == 13:
            raise ValueError("13 is refused")
        return element

    def outputs(self, result):
        yield result
        yield beam.pvalue.TaggedOutput("double", 2 * result)


class StampOf(beam.DoFn):
    def process(self, element, at=beam.DoFn.TimestampParam, window=beam.DoFn.WindowParam):
        yield element, at.micros // 1_000_000, window.start.micros // 1_000_000


@pytest.mark.parametrize("max_waiting", [1, 3, 100])
def test_outputs_keep_their_tag_timestamp_and_window(run_pipeline, max_waiting):
    """With 100 waiting, all come at the end of the bundle, where Beam has no current window."""

    def build(pipeline):
        outputs = (
            pipeline
            | beam.Create(list(range(12)))
            | beam.Map(lambda number: TimestampedValue(number, number * 10))
            | beam.WindowInto(FixedWindows(30))
            | beam.ParDo(Doubling(threads=2, max_waiting=max_waiting)).with_outputs(
                "double", main="same"
            )
        )
        return {
            "same": outputs.same | "Stamp" >> beam.ParDo(StampOf()),
            "double": outputs.double | "Stamp double" >> beam.ParDo(StampOf()),
        }

    _, results = run_pipeline(build)
    assert sorted(results["same"]) == [(n, n * 10, n * 10 // 30 * 30) for n in range(12)]
    assert sorted(results["double"]) == [(2 * n, n * 10, n * 10 // 30 * 30) for n in range(12)]


def test_an_error_in_a_pipeline_fails_the_job(run_pipeline):
    def build(pipeline):
        numbers = pipeline | beam.Create([1, 13, 2])
        return {"out": numbers | beam.ParDo(Doubling(threads=2, max_waiting=9))}

    with pytest.raises(Exception, match="13 is refused"):
        run_pipeline(build)


@pytest.mark.parametrize(("threads", "max_waiting"), [(0, 1), (1, 0), (-1, 5)])
def test_no_threads_and_no_waiting_elements_are_refused(threads, max_waiting):
    with pytest.raises(ValueError, match="at least 1 of each"):
        Doubling(threads=threads, max_waiting=max_waiting)
