"""The page of the shadow rules shows what the command `rules shadow` prints."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rules
from beam_pipeline.web.output import shadow_comparisons
from tests.beam_pipeline.fleets import SHA256, write_fleet
from tests.beam_pipeline.web.serving import (
    RULES,
    Served,
    served,
    write_shadow,
    write_small_output,
)
from tests.transforms.archives import seen

LESS = "version: 1\ndefaults:\n  objects: {person: {min_score: 0.94}, car: {min_score: 0.65}}\n"


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Served]:
    """Of five images, the rules alert four, and the shadow rules three of them."""
    write_small_output(tmp_path / "out")
    write_shadow(tmp_path / "out", LESS)
    with served(tmp_path / "out", tmp_path / "index") as console:
        yield console


def rows(page: str) -> dict[str, list[int]]:
    """The numbers of each camera."""
    found = re.findall(r'<tr><th scope="row"><a [^>]*>([\w-]+)</a></th>(.*?)</tr>', page)
    return {id: [int(cell) for cell in re.findall(r"<td>(\d+)</td>", row)] for id, row in found}


def cards(page: str) -> list[str]:
    return re.findall(r'<a class="shot" href="/cameras/\w+/images/([^"]*)"', page)


def test_it_shows_the_numbers_and_the_newest_differences_first(here: Served) -> None:
    browser = here.browser()
    page = browser.get("/shadow").text
    assert rows(page) == {
        "all": [4, 3, 3, 0, 1, 0, 0, 0, 0, 0],
        "gate": [1, 1, 1, 0, 0, 0, 0, 0, 0, 0],
        "hall": [3, 2, 2, 0, 1, 0, 0, 0, 0, 0],
    }
    assert cards(page) == ["hall_2026-01-31T10-02-00Z"]
    assert "by the shadow rules no threat: score 0.93, minimum 0.94" in page
    assert cards(browser.get("/shadow?camera=gate").text) == []
    assert browser.get("/cameras/hall/images/hall_2026-01-31T10-02-00Z").status_code == 303
    # A mark counts at once.
    alert_id = rules.alert_id("hall", "2026-01-31T10:02:00Z", "alert")
    assert browser.mark("false", "hall", alert_id).status_code == 303
    page = browser.get("/shadow").text
    assert rows(page)["hall"] == [3, 2, 2, 0, 1, 0, 1, 0, 0, 0]
    assert "marked false" in page


def test_it_follows_the_output_and_an_edit_of_the_shadow_rules(here: Served) -> None:
    browser, output = here.browser(), Path(here.prepared.console.output)
    first, second = (rules.parse_rules(text, "rules").version for text in (LESS, RULES))
    assert first in browser.get("/shadow").text
    later = seen("hall", "2026-02-01T10:00:00Z", ("person", 0.9), sha256=SHA256)
    write_fleet(output, [later], rule_text=RULES)
    write_shadow(output, RULES, [later])
    here.until(lambda: second in browser.get("/shadow").text)
    assert rows(browser.get("/shadow").text)["hall"] == [1, 1, 1, 0, 0, 0, 0, 0, 0, 0]
    assert rows(browser.get(f"/shadow?version={first}").text)["hall"][:3] == [3, 2, 2]
    # To begin anew, people delete the folder.
    shutil.rmtree(output / "shadow")
    here.until(lambda: not rows(browser.get("/shadow").text))
    assert here.prepared.console.stale() is None
    assert 'href="/shadow"' not in browser.get("/alerts").text


@pytest.mark.parametrize(
    "query", ["version=x", "version='", "camera=%22%3E%3Cb%3E", "from=-1", "from=99999999999"]
)
def test_a_wrong_address_shows_what_is_there(here: Served, query: str) -> None:
    answer = here.browser().get(f"/shadow?{query}")
    assert answer.status_code == 200
    assert "<b>" not in answer.text


def test_many_differences_are_on_several_pages(tmp_path: Path) -> None:
    many = [
        seen("yard", f"2026-01-31T10:{minute:02d}:00Z", ("person", 0.6), sha256=SHA256)
        for minute in range(50)
    ]
    write_fleet(tmp_path / "out", many, rule_text=RULES)
    write_shadow(tmp_path / "out", LESS, many)
    (folder,) = (tmp_path / "out" / "shadow" / "alerts").iterdir()
    (folder / f"20260131T120000Z_{'0' * 12}.json").write_text("{}")
    with served(tmp_path / "out", tmp_path / "index") as here:
        browser, address, found = here.browser(), "/shadow", []
        while address:
            page = browser.get(address).text
            found += cards(page)
            older = re.search(r'href="([^"]*)" rel="next"', page)
            address = older[1].replace("&amp;", "&") if older else ""
        assert found == [image.stem for image in reversed(many)]
        assert f"20260131T120000Z_{'0' * 12}.json" in browser.get("/health").text


def test_versions_that_nobody_has_used_cost_nothing(
    here: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = here.browser()
    assert len(rows(browser.get("/shadow").text)) > 1
    asked: list[str | None] = []
    compare = shadow_comparisons.compare_alerts

    def count(alerts: Any, facts: Any, version: str | None) -> Any:
        asked.append(version)
        return compare(alerts, facts, version)

    monkeypatch.setattr(shadow_comparisons, "compare_alerts", count)
    for number in range(9):
        assert rows(browser.get(f"/shadow?version={number:012x}").text) == {}
    assert len(rows(browser.get("/shadow").text)) > 1
    assert asked == []
