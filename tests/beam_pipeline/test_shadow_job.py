"""A job with shadow rules: whatever they say, the rest of its output stays the same."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rules
from beam_pipeline import bundled, cli
from tests.beam_pipeline.conftest import jpeg, refused, tree
from tests.transforms.web_service import WebService

ALERT = re.compile(r"alerts/[a-z-]+/[0-9a-f]{32}\.json")
STRICT = (
    "version: 1\n"
    "targets: {guard: {webhook: 'URL'}}\n"
    "limits: {per_id: {alerts: 1, within: 1h}}\n"
    "defaults:\n"
    "  objects: {person: {min_score: 0.75}, cat: }\n"
    "  confirm: {pictures: 2, within: 5m}\n"
    "  notify: [guard]\n"
)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of two cameras; of one capture time there are two, and one file is broken."""
    folder = tmp_path_factory.mktemp("images")
    for camera in ("hall", "front-door"):
        for path in sorted((bundled.BUNDLED_SAMPLES / camera).rglob("*.jpg")):
            (folder / path.name).write_bytes(path.read_bytes())
    (folder / "more").mkdir()
    first, second, *_ = sorted(folder.glob("hall_*.jpg"))
    (folder / "more" / first.name).write_bytes(second.read_bytes())
    (folder / "yard_20260131T180000Z.jpg").write_bytes(b"half of a file")
    (folder / "yard_20260131T180100Z.jpg").write_bytes(jpeg())
    return folder


def job(images: Path, output: Path, *options: object) -> dict[str, bytes]:
    words = ["--input", images, "--output", output, "--model", "bundled", *options]
    assert cli.main(["--rules", str(bundled.BUNDLED_RULES), *map(str, words)]) == 0
    return {name: data.replace(bytes(output), b"OUT") for name, data in tree(output).items()}


@pytest.fixture
def service() -> Iterator[WebService]:
    with WebService() as web:
        yield web


@pytest.fixture(scope="module")
def plain(images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return job(images, tmp_path_factory.mktemp("plain"))


def split(output: dict[str, bytes]) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """The rest of an output, and what the shadow rules say."""
    shadow = [json.loads(data) for name, data in output.items() if name.startswith("shadow/")]
    rest = {name: data for name, data in output.items() if not name.startswith("shadow/")}
    return rest, shadow


def sent(output: dict[str, bytes]) -> set[str]:
    """The alerts of a job that no cooldown has suppressed."""
    final = [json.loads(data) for name, data in output.items() if name.startswith("final/")]
    suppressed = {
        (image["id"], image["timestamp"])
        for image in final
        if image["threat"]["suppressed_by"] is not None
    }
    records = [json.loads(data) for name, data in output.items() if ALERT.fullmatch(name)]
    return {
        record["alert_id"]
        for record in records
        if (record["id"], record["timestamp"]) not in suppressed
    }


def test_nothing_changes_but_the_folder_of_the_shadow(
    images: Path,
    plain: dict[str, bytes],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    service: WebService,
) -> None:
    (tmp_path / "shadow.yaml").write_text(STRICT.replace("URL", service.url))
    options = ("--shadow_rules", tmp_path / "shadow.yaml")
    capsys.readouterr()
    rest, shadow = split(job(images, tmp_path / "out", *options))
    assert rest == plain
    assert not service.requests
    differences = Counter(record["difference"] for record in shadow)
    assert differences["only_rules"] >= 3
    assert differences["only_shadow"] >= 1
    said = capsys.readouterr().out
    version = rules.load_rules(str(tmp_path / "shadow.yaml")).version
    assert f"shadow rules        {tmp_path / 'shadow.yaml'}, version {version}\n" in said
    assert (
        f"alerts of {differences['both']} images by both, of {differences['only_rules']} only by "
        f"the rules, of {differences['only_shadow']} only by the shadow rules" in said
    )
    # A job with these rules sends the alerts that the shadow rules would have sent.
    # Its limits hold back messages, not alerts.
    alone = job(images, tmp_path / "alone", "--rules", tmp_path / "shadow.yaml")
    assert {one["alert_id"] for one in shadow if one["shadow"]["alerts"]} == sent(alone)
    assert {one["alert_id"] for one in shadow if one["rules"]["alerts"]} == sent(plain)


def test_the_same_rules_have_the_same_alerts_and_the_same_bytes_in_the_packed_form(
    images: Path, plain: dict[str, bytes], tmp_path: Path
) -> None:
    options = ("--shadow_rules", bundled.BUNDLED_RULES)
    output = job(images, tmp_path / "out", *options)
    rest, shadow = split(output)
    assert rest == plain
    assert {one["alert_id"] for one in shadow} == sent(plain)
    assert {one["difference"] for one in shadow} == {"both"}
    packed = job(images, tmp_path / "packed", *options, "--repository", "packed")
    assert {name: data for name, data in packed.items() if name.startswith("shadow/")} == {
        name: data for name, data in output.items() if name.startswith("shadow/")
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "no such file"),
        ("version: 1\ndefaults: {objects: {persom: }}\n", "persom"),
        ("version: 1\nprofile: {}\n", "profile"),
        (
            "version: 1\ndefaults: {objects: {person: }, track: {min_score: 0.01, within: 5s}}\n",
            "track.min_score",
        ),
    ],
    ids=["missing", "label", "key", "score"],
)
def test_shadow_rules_that_are_wrong_end_the_job_before_an_image_is_read(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, says: str
) -> None:
    file = tmp_path / "shadow.yaml"
    if text is not None:
        file.write_text(text)
    line = refused(
        capsys,
        *("--input", images, "--output", tmp_path / "out", "--model", "bundled"),
        *("--shadow_rules", file),
    )
    assert str(file) in line
    assert says in line
