"""What the documentation shows is taken by the code."""

import re
from pathlib import Path

import pytest

from rules import FILTERS, parse_rules
from tests import documented, options_page

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OTHER_PAGES = [ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")]
RULE_FILES = [
    (page.name, text)
    for page in PAGES
    for text in re.findall(r"^```yaml\n(version: 1\n.*?)^```", page.read_text(), re.DOTALL | re.M)
]


def test_there_are_rule_files_in_the_readme_and_in_the_page_of_rules():
    assert {name for name, _ in RULE_FILES} >= {"README.md", "rules.md"}


@pytest.mark.parametrize(("name", "text"), RULE_FILES)
def test_a_rule_file_that_is_shown_is_right(name, text):
    shown = parse_rules(text, name)
    assert shown.cameras or shown.defaults.objects


def test_every_filter_is_told_of_in_its_order():
    page = (ROOT / "docs" / "rules.md").read_text()
    table = page.split("| filter |")[1].split("\n\n")[0]
    names = [name for cells in re.findall(r"^\| (`.*?) \|", table, re.M) for name in
             re.findall(r"`(\w+)`", cells)]  # fmt: skip
    assert names == list(FILTERS)


@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES], ids=lambda page: page.name)
def test_links_lead_to_files(page):
    links = re.findall(r"\]\((?!http|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", OTHER_PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_are_there(page):
    """As `rules/judging.py`."""
    named = re.findall(
        r"`((?:rules|transforms|beam_pipeline|tests|docs|examples)/[\w./]*)`", page.read_text()
    )
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", documented.PAGES)
def test_every_command_is_run_by_a_test_or_it_is_said_why_not(page):
    commands = documented.commands(page)
    assert [command.text for command in commands if command.where is None] == []
    beginnings = documented.WHERE[page]
    assert {
        beginning
        for beginning in beginnings
        if not any(command.text.startswith(beginning) for command in commands)
    } == set()
    files = {where for where in beginnings.values() if not where.startswith("not here: ")}
    for file in files:
        assert "documented." in (ROOT / file).read_text(), f"{file} runs no command of a page"


def test_the_page_of_options_is_made_from_the_parsers() -> None:
    assert options_page.PAGE.read_text() == options_page.page(), "run `make docs`, and commit it"


def test_every_option_of_every_command_is_on_the_page() -> None:
    sections = re.split(r"^## ", options_page.PAGE.read_text(), flags=re.M)[1:]
    documented_options = {
        section.splitlines()[0]: set(re.findall(r"^\| `(--\w+)", section, re.M))
        for section in sections
    }
    assert documented_options == {
        command: {action.option_strings[0] for action in options_page.options_of(parser)
                  if action.option_strings}
        for command, parser in options_page.parsers().items()
    }  # fmt: skip
    assert {"--input", "--count_shards", "--follow_links"} <= documented_options["run"]
    for command in ("counts", "rules explain", "alerts resend", "serve"):
        assert "--output" in documented_options[command], command


def test_the_readme_is_read_in_five_minutes_and_names_what_a_reader_looks_for() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.split()) <= 1500
    names = [
        "apache-beam", "tensorflow", "tensorflow-io", "pillow", "google-cloud-storage",
        "matplotlib", "requests", "make run", "make test", "Docker", "Kubernetes", "Pachyderm",
        "python -m beam_pipeline --runner DirectRunner", "Flink", "Dataflow", "S3", "GCS",
        "side output of invalid images", "windowed threat and alert counts",
    ]  # fmt: skip
    assert [name for name in names if name not in text] == []


def test_every_page_is_linked_from_the_readme_or_from_a_page_that_is() -> None:
    linked, open_pages = set(), [ROOT / "README.md"]
    while open_pages:
        page = open_pages.pop()
        linked.add(page)
        for link in re.findall(r"\]\((?!http|#)([^)#]+\.md)", page.read_text()):
            if (target := (page.parent / link).resolve()) not in linked:
                open_pages.append(target)
    assert [page.name for page in PAGES if page not in linked] == []


def test_fragments_lead_to_headings() -> None:
    def headings(page: Path) -> set[str]:
        lines = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
        return {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in lines}

    wrong = [
        f"{page.name}: {link}#{fragment}"
        for page in PAGES
        for link, fragment in re.findall(r"\]\((?!http)([^)#]*)#([^)]+)\)", page.read_text())
        if fragment not in headings(page.parent / link if link else page)
    ]
    assert wrong == []
