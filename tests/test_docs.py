"""What the documentation shows is taken by the code."""

import re
from pathlib import Path

import pytest

from rules import FILTERS, parse_rules

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RULE_FILES = [
    (page.name, text)
    for page in PAGES
    for text in re.findall(r"^```yaml\n(version: 1\n.*?)^```", page.read_text(), re.DOTALL | re.M)
]


def test_there_are_rule_files_in_the_readme_and_in_the_page_of_rules():
    assert {name for name, _ in RULE_FILES} >= {"README.md", "rules.md"}


@pytest.mark.parametrize(("name", "text"), RULE_FILES)
def test_a_rule_file_that_is_shown_is_right(name, text):
    assert parse_rules(text, name).cameras


def test_every_filter_is_told_of_in_its_order():
    page = (ROOT / "docs" / "rules.md").read_text()
    table = page.split("| filter |")[1].split("\n\n")[0]
    names = [name for cells in re.findall(r"^\| (`.*?) \|", table, re.M) for name in
             re.findall(r"`(\w+)`", cells)]  # fmt: skip
    assert names == list(FILTERS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    links = re.findall(r"\]\((?!http|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
