import threading

import apache_beam as beam
from apache_beam.metrics import Metrics

from transforms.runtime.counters import NAMESPACE, count, counted, counted_here


class Counting(beam.DoFn):
    def process(self, element):
        count("test.seen")
        count(f"test.seen.{element}", 3)
        Metrics.counter("elsewhere", "test.seen").inc(1000)
        yield element


def test_counts_are_in_the_job_s_result_by_name(run_pipeline):
    before = counted_here()

    def build(pipeline):
        return {"out": pipeline | beam.Create(["a", "b", "a"]) | beam.ParDo(Counting())}

    result, _ = run_pipeline(build)
    expected = {"test.seen": 3, "test.seen.a": 6, "test.seen.b": 3}
    assert counted(result) == expected
    assert counted(result)["test.never"] == 0
    assert counted_here() - before == expected


def test_the_same_name_in_two_steps_is_one_counter(run_pipeline):
    def build(pipeline):
        letters = pipeline | beam.Create(["a"])
        return {
            "one": letters | "One" >> beam.ParDo(Counting()),
            "other": letters | "Other" >> beam.ParDo(Counting()),
        }

    result, _ = run_pipeline(build)
    assert counted(result)["test.seen"] == 2


def test_counting_in_several_threads_loses_nothing():
    before = counted_here()["test.threads"]
    threads = [
        threading.Thread(target=lambda: [count("test.threads") for _ in range(2000)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counted_here()["test.threads"] - before == 8000


def test_the_returned_counts_are_a_copy():
    counted_here()["test.copy"] += 5
    assert counted_here()["test.copy"] == 0


def test_the_namespace_is_what_operators_look_for():
    assert NAMESPACE == "threats"
