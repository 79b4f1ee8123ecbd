"""Why a job failed, found in what Beam and Java make of it."""

from __future__ import annotations

import errno
import os
import traceback

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from beam_pipeline.console.failure_messages import explain, setup_error
from transforms.alerting.target_checks import TargetError
from transforms.models.model_files import ModelError

GO_ON = "run the same command with --resume to continue"
JAVA = """\
org.apache.flink.runtime.JobException: Recovery is suppressed by NoRestartBackoffTimeStrategy
\tat org.apache.flink.runtime.executiongraph.failover.ExecutionFailureHandler.handleFailure
Caused by: java.lang.RuntimeException: Error received from SDK harness for instruction 4: Traceback
  File "apache_beam/runners/common.py", line 1498, in apache_beam.runners.common.DoFnRunner.process
{error}
\tat org.apache.beam.runners.fnexecution.control.FnApiControlClient$ResponseStreamObserver.onNext
"""


class _Fails(beam.DoFn):
    def __init__(self, error: Exception) -> None:
        self._error = error

    def process(self, _: int) -> None:
        raise self._error


def raised(error: Exception) -> BaseException:
    """What a runner raises when a step has raised an error."""
    with pytest.raises(Exception) as caught, beam.Pipeline(runner=FnApiRunner()) as pipeline:  # noqa: PT011
        pipeline | beam.Create([1]) | "Store" >> beam.ParDo(_Fails(error))
    return caught.value


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "/out/a: No space left on device; make room there"),
        (errno.EDQUOT, "/out/a: Disk quota exceeded; make room there or ask for a larger quota"),
        (errno.EROFS, "/out/a: Read-only file system; mount it as writable"),
        (errno.EACCES, "/out/a: Permission denied; restore this user's access to it"),
        (
            errno.ESTALE,
            "/out/a: Stale file handle; check that the disk or mount is present and responds",
        ),
    ],
)
def test_an_error_of_a_disk_says_what_and_where_and_the_way_on(number: int, says: str) -> None:
    error = OSError(number, os.strerror(number), "/out/a")
    line = explain(raised(error))
    assert line.startswith(says)
    assert line.endswith(f", and {GO_ON}")
    # As it comes from another process: nothing but text.
    text = f"OSError: [Errno {number}] {os.strerror(number)}: '/out/a'"
    text = f"RuntimeError: {text} [while running 'Store']"
    assert explain(RuntimeError(JAVA.format(error=text))) == line


def test_an_error_in_a_stores_own_words() -> None:
    line = explain(raised(ConnectionError("s3://bucket/a: the store does not answer")))
    assert line == f"s3://bucket/a: the store does not answer; once that is fixed, {GO_ON}"


def test_a_savepoint_of_other_steps_is_named() -> None:
    """As Flink refuses it, where a stream with one part of its input is continued with more."""
    error = RuntimeError(
        "Pipeline BeamApp-root-1201124527-881ddd4 failed in state FAILED: "
        "java.lang.IllegalStateException: Failed to rollback to checkpoint/savepoint "
        "file:/srv/savepoints/savepoint-82d359-9c86901a8985. Cannot map checkpoint/savepoint state "
        "for operator 3505b187838d957b7ccfbd5a27a3391e to the new program, because the operator is "
        "not available in the new program."
    )
    assert explain(error) == (
        "the savepoint file:/srv/savepoints/savepoint-82d359-9c86901a8985 is of a job with other "
        "steps; start this one with the options of that job (such as --input_parts, "
        "--notifications, --repository)"
    )


def test_a_fault_of_the_program_names_its_place() -> None:
    line = explain(raised(KeyError("box")))
    assert line.startswith("KeyError: ")
    assert "box" in line
    assert "in the step Store" in line
    assert len(line.splitlines()) == 1


def test_other_commands_have_another_way_on() -> None:
    error = OSError(errno.ENOSPC, "No space left on device", "/out/a")
    assert explain(error, "the same command does it again").endswith(
        "make room there, and the same command does it again"
    )


@pytest.mark.parametrize(
    "error",
    [
        "transforms.models.model_files.ModelError: /m: no such file or directory",
        "RuntimeError: transforms.models.model_files.ModelError: /m: no such file or directory",
        "transforms.models.model_files.ModelError: /m: no such file or directory "
        "[while running 'Detect']",
    ],
)
def test_a_workers_set_up_error_is_found_in_javas_words(error: str) -> None:
    assert setup_error(JAVA.format(error=error)) == "/m: no such file or directory"


@pytest.mark.parametrize(
    "error",
    [
        "OSError: [Errno 28] No space left on device: '/out/a'",
        "ConnectionError: s3://b: the store does not answer",
        "KeyError: 'ModelError: '",
    ],
)
def test_what_may_pass_is_no_set_up_error(error: str) -> None:
    """A runner tries again, and a disk or a store may come back."""
    assert setup_error(JAVA.format(error=error)) is None


@pytest.mark.parametrize("kind", [ModelError, TargetError])
def test_a_set_up_error_is_reported_unchanged(kind: type[Exception]) -> None:
    error = raised(kind("/m: no model in it"))
    assert explain(error) == f"/m: no model in it; once that is fixed, {GO_ON}"
    assert setup_error("".join(traceback.format_exception(error))) == "/m: no model in it"
