"""`python -m benchmarks.cost`, as docs/scale.md shows it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.cost import main
from tests import documented
from tests.documented import COST

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"


def rows(text: str) -> dict[str, list[float]]:
    """The rows of the first table of costs in a text."""
    table = text[text.index("images | json |") :].partition("\n\n")[0]
    lines = [line.strip("| ").split(" | ") for line in table.splitlines() if "---" not in line]
    return {name: [float(cell.replace(",", "")) for cell in cells] for name, *cells in lines[1:]}


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, list[float]]:
    main(words)
    return rows(capsys.readouterr().out)


@pytest.fixture
def words() -> list[Sequence[str]]:
    commands = [command.text for command in documented.run_by(COST)]
    assert len(commands) == 4
    return [shlex.split(command)[3:] for command in commands]


def test_the_page_shows_what_the_command_prints(
    words: list[Sequence[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    page, found = rows(PAGE.read_text()), printed(capsys, *words[0])
    assert page.keys() == found.keys()
    for name, cells in page.items():
        # The size of records differs a little between versions of pyarrow.
        assert cells == pytest.approx(found[name], rel=0.05, abs=0.011), name
    assert printed(capsys, *words[1]) == found  # The prices that the page gives are the defaults.
    packed = re.search(r"\| packed, no copies \|", PAGE.read_text())
    assert packed is not None
    smaller_fleet = printed(capsys, *words[2])
    assert found["PUT and COPY"][3] < smaller_fleet["PUT and COPY"][3] < 60_000


@pytest.mark.parametrize(
    ("option", "row", "factor"),
    [
        ("--price_get", "cost of requests", None),
        ("--price_put", "cost of requests", None),
        ("--price_storage", "cost of storage for 30 days", 0),
        ("--price_processor", "cost of processors", 0),
        ("--processor_ms", "cost of processors", 0),
    ],
)
def test_a_reader_changes_a_price(
    option: str, row: str, factor: float | None, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = printed(capsys), printed(capsys, option, "0")
    for cost, costs in before.items():
        if cost not in (row, "total cost"):
            assert after[cost] == costs
    assert all(new < old for new, old in zip(after[row], before[row], strict=True))
    if factor is not None:
        assert after[row] == [factor] * 4


def test_twice_the_images_cost_twice_as_much(capsys: pytest.CaptureFixture[str]) -> None:
    once, twice = printed(capsys), printed(capsys, "--images", "2000000")
    for name, cells in once.items():
        assert twice[name] == pytest.approx([2 * cell for cell in cells], rel=0.02, abs=0.11)


def test_images_that_are_larger_or_kept_longer_cost_only_storage(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = printed(capsys)
    larger = printed(capsys, "--image_kb", "200")
    assert larger["GB stored"][0] == pytest.approx(before["GB stored"][0] + 100, abs=0.2)
    assert larger["GB stored"][2:] == before["GB stored"][2:]
    assert larger["cost of requests"] == before["cost of requests"]
    longer = printed(capsys, "--days", "60")
    assert longer["cost of storage for 60 days"][0] == pytest.approx(
        2 * before["cost of storage for 30 days"][0], abs=0.02
    )


def test_alerts_cost_further_requests(capsys: pytest.CaptureFixture[str]) -> None:
    none = printed(capsys, "--alert_share", "0")
    assert none["GET"] == [1_000_000] * 4
    assert none["PUT and COPY"] == [3_000_200, 1_002_353, 2_000_200, 2_353]
    all_of_them = printed(capsys, "--alert_share", "1")
    assert all_of_them["GET"] == [2_000_000] * 4
    assert all_of_them["PUT and COPY"] == [4_000_200, 3_002_353, 3_000_200, 2_002_353]


def fleet(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, float]:
    """The rows of the table of a fleet."""
    main(["--cameras", "60000", *words])
    table = capsys.readouterr().out.partition("\n\n")[0]
    lines = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    return {cells[0]: float(cells[1].replace(",", "")) for cells in lines}


def test_the_page_shows_what_a_million_cameras_need(
    words: list[Sequence[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert words[3][:2] == ["--cameras", "1000000"]
    main(words[3])
    table, _, costs = capsys.readouterr().out.partition("\n\n")
    assert table in PAGE.read_text()
    assert costs.startswith("| 43,200,000,000 images | json |")


def test_what_a_fleet_needs_is_computed_from_its_images(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--processor_ms", "40", "--flink_ms", "4", "--busy", "0.5", "--memory_gb", "3"]
    words += ["--state_seconds", "2000", "--state_bytes", "1000", "--image_kb", "50"]
    words += ["--alert_share", "0.5", "--images_a_file", "100", "--price_processor", "0.1"]
    assert fleet(capsys, *words) == {
        "images/s": 1000,
        "GB/s that are read": 0.05,
        "processors for images and their model": 80,
        "processors for the stream on Flink": 8,
        "memory in GB": 264,
        "state in GB": 2,
        "state in GB, packed": 6.9,  # Of which 2,429 bytes are the verdict of each image.
        "GET/s": 1500,
        "PUT and COPY/s, json": 3510,
        "PUT and COPY/s, packed, no copies": 1030,
        "processors for 30 days": 6336,
    }
