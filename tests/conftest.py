"""What tests of every package share."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.runner import PipelineResult
from hypothesis import settings

from beam_pipeline import cli
from tests import lanes, once, signatures, warm
from tests.absent import give_up
from tests.deploy.images import Images
from tests.flink.stream_job import flink_cluster
from tests.progress import FileByFile

Outputs = Mapping[str, "beam.PCollection[Any]"]
RunPipeline = Callable[
    [Callable[[beam.Pipeline], Outputs]], tuple[PipelineResult, dict[str, list[Any]]]
]

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


Command = Callable[..., Done]

_SHARED = Path(__file__).resolve().parents[2] / "shared"
_kept: dict[tuple[int, str], list[Any]] = defaultdict(list)
_runs = itertools.count()
# Java's programs live for minutes here: its second compiler would cost more than it gives.
_JAVA = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"


# Properties try the same examples in each run, as the searches do (tests/search.py).
settings.register_profile("same", derandomize=True, deadline=None, database=None)
# For a second set of versions (.ci/run): `--hypothesis-profile few`.
settings.register_profile("few", settings.get_profile("same"), max_examples=10)
settings.load_profile("same")


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    once.begin(config)
    signatures.remember()
    os.environ.setdefault("JDK_JAVA_OPTIONS", _JAVA)
    if config.pluginmanager.has_plugin("dsession"):
        config.pluginmanager.register(FileByFile(config))


def pytest_unconfigure(config: pytest.Config) -> None:
    once.end(
        config,
        images=lambda folder: Images(folder).remove(),
        flink=flink_cluster.down,
        warm=warm.stop,
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: lanes.turn(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    return lanes.scheduler(config, log)


def _shared(name: str) -> Path:
    folder = _SHARED / name
    if not folder.is_dir():
        give_up(f"{folder} is not there: these tests need the {name} kept beside the checkout")
    return folder


@pytest.fixture(scope="session")
def shared_models() -> Path:
    """Detectors that are kept beside the checkout, not in it."""
    return _shared("models")


@pytest.fixture(scope="session")
def shared_photos() -> Path:
    """Photographs that are kept beside the checkout, not in it."""
    return _shared("photos")


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A real Kafka broker on the loopback."""
    from tests.brokers.kafka import KafkaBroker

    broker = KafkaBroker(tmp_path_factory.mktemp("kafka"))
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def pubsub() -> Iterator[Any]:
    """A Pub/Sub server on the loopback, found by its environment variable."""
    from tests.brokers.pubsub import PubSubServer

    server = PubSubServer()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PUBSUB_EMULATOR_HOST", server.address)
        yield server
    server.stop()


@pytest.fixture(scope="session")
def moto_server() -> Iterator[Any]:
    """An S3 server on the loopback."""
    from tests.stores.servers import moto

    with moto() as server:
        yield server


class _Keep(beam.DoFn):
    """Hands elements to the test: the in-process runner's workers share its memory."""

    def __init__(self, run: int, name: str) -> None:
        self._place = run, name

    def process(self, element: Any) -> None:
        _kept[self._place].append(element)


@pytest.fixture
def run_pipeline() -> RunPipeline:
    """Runs what a function adds to a pipeline, on Beam's in-process runner, to its end.

    The function returns PCollections by name; what they held is returned by the same names, in no
    certain order, after the runner's result.
    """

    def run(
        build: Callable[[beam.Pipeline], Outputs],
    ) -> tuple[PipelineResult, dict[str, list[Any]]]:
        number = next(_runs)
        pipeline = beam.Pipeline(runner=FnApiRunner())
        outputs = build(pipeline)
        for name, collection in outputs.items():
            collection | f"Keep {name}" >> beam.ParDo(_Keep(number, name))
        result = pipeline.run()
        result.wait_until_finish()
        return result, {name: _kept.pop((number, name), []) for name in outputs}

    return run


@pytest.fixture(scope="session")
def run_job() -> Run:
    """Runs `python -m beam_pipeline` with arguments, from the checkout or another directory."""

    def run(
        *arguments: str | os.PathLike[str], cwd: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        words = [os.fspath(argument) for argument in arguments]
        return warm.run(words, cwd, {**os.environ, **environment}, timeout=280)

    return run


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Runs a command of `python -m beam_pipeline` in this process, where TensorFlow is loaded."""
    before = signal.getsignal(signal.SIGINT)

    def run(*arguments: str | os.PathLike[str]) -> Done:
        code = cli.main([os.fspath(argument) for argument in arguments])
        return Done(code, *capsys.readouterr())

    yield run
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def samples_run(run_job: Run) -> tuple[Path, str]:
    """The output directory and the printed summary of the job on the bundled samples."""

    def run(folder: Path) -> None:
        finished = run_job("--runner", "DirectRunner", "--output", folder / "output")
        assert finished.returncode == 0, finished.stderr
        (folder / "summary").write_text(finished.stdout, encoding="utf-8")

    folder = once.once("samples", run)
    return folder / "output", (folder / "summary").read_text(encoding="utf-8")
