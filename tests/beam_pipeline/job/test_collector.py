"""Objects of the set-up are left out of collections while a job runs, and only then."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from beam_pipeline import cli
from beam_pipeline.console.exceptions import SetupError
from beam_pipeline.job import run as job_run
from beam_pipeline.job.collector import objects_kept


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.enable()


class _Cycle:
    """An object that only the collector can end."""

    def __init__(self) -> None:
        self.itself = self


def test_nothing_is_collected_during_the_block_and_its_objects_are_left_out_later() -> None:
    gc.collect()
    with objects_kept():
        assert not gc.isenabled()
        kept = _Cycle()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 1000
    assert not any(tracked is kept for tracked in gc.get_objects())


def test_a_collector_that_was_off_stays_off_and_an_error_ends_the_block() -> None:
    gc.disable()
    with pytest.raises(SetupError), objects_kept():
        raise SetupError("wrong")
    assert not gc.isenabled()
    assert gc.get_freeze_count() > 0


@pytest.mark.parametrize("fails", [False, True], ids=["done", "failed"])
def test_a_job_runs_with_the_collector_on_and_the_objects_of_its_set_up_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    seen = []

    def look(*_: object) -> int:
        seen.append((gc.isenabled(), gc.get_freeze_count() > 100_000))
        if fails:
            raise RuntimeError("a bug")
        return 0

    monkeypatch.setattr(job_run, "_run", look)
    words = ["--runner", "DirectRunner", "--output", str(tmp_path)]
    if fails:
        with pytest.raises(RuntimeError):
            cli.main(words)
    else:
        assert cli.main(words) == 0
    assert seen == [(True, True)]
    assert gc.get_freeze_count() == 0
