"""A scan that takes over what an earlier one has read shows the same as one that reads all."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipeline.fleet.output_scan import OutputScan
from tests.beam_pipeline.dated_output import DatedOutput
from tests.search import search
from transforms.storage import stores


@pytest.fixture
def output(tmp_path: Path) -> DatedOutput:
    return DatedOutput(tmp_path / "out")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were read, by their names."""
    names: list[str] = []
    read = stores.read_bytes

    def noting(uri: str, at_most: int = -1) -> bytes:
        names.append(uri.rsplit("/", 1)[-1])
        return read(uri, at_most)

    monkeypatch.setattr(stores, "read_bytes", noting)
    return names


def test_only_what_is_new_or_young_is_read_again(output: DatedOutput, opened: list[str]) -> None:
    for window, seconds_ago in ((0, 1000), (1, 500), (2, 61), (3, 59)):
        output.count(window, 5, seconds_ago)
        output.alert(window, "as it was", seconds_ago)
    first = OutputScan(str(output.folder))
    output.shown(first)
    assert len(opened) == 8
    opened.clear()
    output.count(1, 6, 400)
    output.alert(2, "as it is", 55)
    assert output.shown(OutputScan(str(output.folder), first.kept()))[0] == [5, 6, 5, 5]
    assert sorted(opened) == [
        *("2.json", "20260210T000500Z_20260210T001000Z.jsonl"),
        *("20260210T001500Z_20260210T002000Z.jsonl", "3.json"),
    ]


def test_what_an_earlier_scan_did_not_ask_for_is_forgotten(
    output: DatedOutput, opened: list[str]
) -> None:
    output.count(0, 5, 1000)
    output.alert(0, "as it was", 1000)
    first = OutputScan(str(output.folder))
    output.shown(first)
    second = OutputScan(str(output.folder), first.kept())
    second.counts()
    opened.clear()
    output.shown(OutputScan(str(output.folder), second.kept()))
    assert opened == ["0.json"]


def test_so_much_is_kept(
    output: DatedOutput, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beam_pipeline.fleet.output_scan._MAX_KEPT", 3)
    for number in range(2):
        output.count(number, 5, 1000)
        output.alert(number, "as it was", 1000)
    first = OutputScan(str(output.folder))
    shown = output.shown(first)
    opened.clear()
    assert output.shown(OutputScan(str(output.folder), first.kept())) == shown
    assert opened == ["1.json"]


STEPS = st.one_of(
    st.tuples(st.just("count"), st.integers(0, 2), st.integers(0, 9), st.sampled_from([0, 90])),
    st.tuples(st.just("alert"), st.integers(0, 2), st.integers(0, 9), st.sampled_from([0, 90])),
    st.tuples(st.just("forget"), st.integers(0, 2), st.just(0), st.just(0)),
    st.tuples(st.just("scan"), st.just(0), st.just(0), st.just(0)),
)


@pytest.mark.search
@search(60)
@given(steps=st.lists(STEPS, min_size=3, max_size=14))
def test_it_shows_what_a_scan_without_memory_shows(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int, int]]
) -> None:
    """A young file may be written again with the same date; an old one gets another one."""
    output = DatedOutput(tmp_path_factory.mktemp("scanned"))
    output.count(0, 1, 300)
    scan = None
    older = 0.0
    for kind, number, value, seconds_ago in [*steps, ("scan", 0, 0, 0)]:
        older += 1.0
        date = seconds_ago + older if seconds_ago else 0.0
        if kind == "count":
            output.count(number, value, date)
        elif kind == "alert":
            output.alert(number, str(value), date)
        elif kind == "forget":
            output.forget(number)
        else:
            scan = OutputScan(str(output.folder), scan and scan.kept())
            assert output.shown(scan) == output.shown(OutputScan(str(output.folder)))
