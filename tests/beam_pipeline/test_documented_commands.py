"""The commands of README.md and of pages of docs/, run one after the other as they stand there."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from beam_pipeline.bundled import BUNDLED_SAMPLES
from tests import documented, warm
from tests.documented import ROOT, SAMPLES, Command
from tests.transforms.web_service import WebService

OWN = "--input /srv/pictures"


def blocks(page: str, language: str) -> list[str]:
    """The blocks of a language on a page."""
    text = (ROOT / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.M)


RULES = blocks("README.md", "yaml")[0]
HEALTH_TARGETS = blocks("docs/health.md", "yaml")[0]
RETENTION = blocks("docs/retention.md", "yaml")[0]


@pytest.fixture(scope="module")
def service() -> Iterator[WebService]:
    with WebService() as running:
        yield running


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the commands are run in their order, from `make run` on."""
    folder = tmp_path_factory.mktemp("checkout")
    documented.make_checkout(folder, warm.interpreter())
    (folder / "rules.yaml").write_text(RULES)
    (folder / "new.yaml").write_text(RULES)
    truth = json.loads((BUNDLED_SAMPLES.parent / "truth.json").read_text())
    rows = ["file,main_class,count"]
    for image in truth["images"]:
        labels = [object_["label"] for object_ in image["objects"]]
        rows += [f"{image['file']},{label},{labels.count(label)}" for label in sorted(set(labels))]
        rows += [] if labels else [f"{image['file']},empty,0"]
    (folder / "truth.csv").write_text("\n".join(rows) + "\n")
    images = folder / "srv" / "pictures"
    images.mkdir(parents=True)
    for file in sorted((BUNDLED_SAMPLES / "hall").glob("*.jpg"))[:6]:
        shutil.copy(file, images)
    (folder / "srv" / "found.json").write_text(json.dumps(found_in(images)))
    return folder


def found_in(images: Path) -> dict[str, object]:
    """What another detector has found in some images: persons."""
    person = {"category": "2", "conf": 0.9, "bbox": [0.4, 0.4, 0.1, 0.3]}
    return {
        "images": [{"file": path.name, "detections": [person]} for path in images.iterdir()],
        "detection_categories": {"1": "dog", "2": "person", "3": "car"},
        "info": {"detector": "md_v5a.0.0.pt", "format_version": "1.3"},
    }


WRITES = {
    "make run": ["output/report/report.html", "output/chart/threats.png"],
    OWN: ["srv/results/report/report.html"],
    "chart.png": ["chart.png"],
    "changes.html": ["changes.html"],
    "evening.html": ["evening.html"],
    "all.html": ["all.html"],
    "page.html": ["page.html"],
    "--repository packed": ["srv/packed/chart/threats.png"],
    "--to archive": ["archive/hall.parquet"],
    "megadetector.json": ["megadetector.json"],
    "health.json": ["health.json"],
    "marks.csv": ["marks.csv"],
    "marks.json": ["marks.json"],
}
SAYS = {
    "make run": "valid               240\n",
    OWN: "valid               6",
    "rules check": "front-door",
    "rules explain": "front-door",
    "rules shadow": "shadow rules version",
    "counts --output output --by id": "warehouse",
    "--format csv": "id,window_start,window_end",
    "health": "camera",
    "backtest": "gained",
    "evaluate": "recall",
    "tune": "min_score",
    "--detections": "md_v5a.0.0.pt",
    "alerts mark": ", by ",
    "prune": "alerts (shortened)",
    "--by_day": ", and has ",
    "--resume": "valid               6 (6 of them",
    "--write better.yaml": "TOO FEW",
}


@pytest.mark.parametrize(
    "command",
    documented.run_by(SAMPLES),
    ids=lambda command: f"{command.page} {command.text.removeprefix('.venv/bin/')}",
)
def test_a_command_does_what_the_page_says(
    command: Command, checkout: Path, service: WebService
) -> None:
    sample = BUNDLED_SAMPLES / "front-door" / "front-door_20260131T181000Z.jpg"
    replacements = {
        "/srv/": f"{checkout}/srv/",
        "efficientdet_d0_coco17_tpu-32": "bundled",
        "--model MODEL": "--model bundled",
        "https://alerts.example.com": service.url,
        "'results/*'": "output",
        "front-door_….json": f"{sample.stem}.json",
    }
    here = {written: path for written, path in replacements.items() if written in command.text}
    requests_before = len(service.requests)
    if "prune" in command.text:
        (checkout / "rules.yaml").write_text(f"{RULES}{RETENTION}")
    if "--notify" in command.text:
        rules = RULES.replace("version: 1\n", f"version: 1\n{HEALTH_TARGETS}")
        (checkout / "rules.yaml").write_text(rules)
    done = documented.shell(
        documented.substituted(command.text, here),
        checkout,
        {**os.environ, "GUARDS_URL": service.url},
    )
    (checkout / "rules.yaml").write_text(RULES)
    assert done.returncode == 0, done.stderr
    for part, names in WRITES.items():
        if part in command.text:
            assert [name for name in names if not (checkout / name).exists()] == []
    for part, words in SAYS.items():
        if part in command.text and "--file" not in command.text:
            assert words in done.stdout
    if f"{OWN} " in command.text and "--alert_url" in command.text:
        assert len(service.requests) > requests_before


def test_a_pipeline_of_your_own_runs_as_the_page_shows_it(checkout: Path) -> None:
    (example,) = blocks("docs/architecture.md", "python")
    words = f'"--input", "{checkout}/srv/pictures", "--model", "bundled"'
    options = '"--output", "output"'
    text = documented.substituted(example, {options: f'{words}, "--output", "own"'})
    (checkout / "own.py").write_text(text)
    done = documented.shell(".venv/bin/python own.py", checkout, os.environ)
    assert done.returncode == 0, done.stderr
    assert "1 ids\n" in done.stdout
    assert len(list((checkout / "own" / "final" / "hall").iterdir())) == 6
