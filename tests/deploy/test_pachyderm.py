"""Pachyderm's pipelines: their specs against its published names, their code over a /pfs tree."""

from __future__ import annotations

import copy
import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

from beam_pipeline.bundled import BUNDLED_RULES, BUNDLED_SAMPLES
from beam_pipeline.fleet.output_scan import OutputScan
from tests.absent import give_up
from tests.beam_pipeline.conftest import tree
from tests.deploy.pachyderm import SPECS, read_spec, run_datum, unpublished
from tests.transforms.web_service import Request, WebService

NAMES = sorted(path.stem for path in SPECS.glob("*.yaml"))

# Pachyderm's own client, whose classes are made from pps.proto. It asks for an older betterproto
# than Beam does, so it can't be a requirement; that of Beam will do for its classes.
SDK = (
    "pachyderm-sdk==2.12.2 "
    "--hash=sha256:d6b8e18af5a2f529638fe783168c15b259a23d6d6ce7a041767e9fc56db1f3d7\n"
)


@pytest.fixture(scope="module")
def create_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The class of what `pachctl create pipeline` sends."""
    folder = tmp_path_factory.mktemp("pachyderm_sdk")
    (folder / "requirements.txt").write_text(SDK)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir"),
            *("--only-binary", ":all:", "--dest", folder, "-r", folder / "requirements.txt"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode != 0:
        give_up(f"no pachyderm-sdk here: {done.stderr}")
    (wheel,) = folder.glob("*.whl")
    sys.path.insert(0, str(wheel))
    try:
        from pachyderm_sdk.api import pps

        yield pps.CreatePipelineRequest
    finally:
        sys.path.remove(str(wheel))


@pytest.mark.parametrize("name", NAMES)
def test_a_spec_has_only_names_that_pachyderm_publishes(name: str, create_pipeline: Any) -> None:
    assert unpublished(create_pipeline, read_spec(name)) == []


def put(key: str, value: Any) -> Callable[[Any], None]:
    return lambda node: node.__setitem__(key, value)


@pytest.mark.parametrize(
    ("path", "edit", "told"),
    [
        ((), put("parallelism", 2), "spec.parallelism: no such field"),
        (("pipeline",), put("names", "x"), "spec.pipeline.names: no such field"),
        (("input", "cross", 1, "pfs"), put("globs", "/"), "spec.input.cross[1].pfs.globs: no"),
        (("transform", "secrets", 0), put("envVar", "X"), "spec.transform.secrets[0].envVar: no"),
        (("transform",), put("cmd", "sh"), "spec.transform.cmd: 'sh' is no"),
        (("transform", "env"), put("N", 1), "spec.transform.env.N: 1 is no"),
        (("input", "cross", 0), put("pfs", "pictures"), "spec.input.cross[0].pfs: 'pictures' is"),
        ((), put("autoscaling", "yes"), "spec.autoscaling: 'yes' is no"),
        (("resource_requests",), put("cpu", True), "spec.resource_requests.cpu: True is no"),
        (("parallelism_spec",), put("constant", "2"), "spec.parallelism_spec.constant: '2' is no"),
    ],
)
def test_a_name_that_pachyderm_does_not_know_is_found_at_any_depth(
    path: tuple[str | int, ...], edit: Callable[[Any], None], told: str, create_pipeline: Any
) -> None:
    spec = copy.deepcopy(read_spec("judge"))
    node: Any = spec
    for step in path:
        node = node[step]
    edit(node)
    (found,) = unpublished(create_pipeline, spec)
    assert found.startswith(told)


def test_what_is_read_through_the_gateway_is_one_datum_and_the_patch_is_one() -> None:
    """Pachyderm takes no other glob for an input of this kind."""
    spec = read_spec("judge-on-flink")
    source = spec["input"]["cross"][0]["pfs"]
    assert (source["s3"], source["glob"]) == (True, "/")
    assert [set(step) for step in json.loads(spec["pod_patch"])] == [{"op", "path", "value"}] * 2


class Judged(NamedTuple):
    """What came of two datums, the first of which was run twice.

    Attributes:
      out: The files of each run, by their paths under /pfs/out.
      requests: What the alert service was asked by each run; the second datum has no secret.
      folder: Holds `out` of the first and the second datum, in `one` and `two`.
    """

    out: dict[str, dict[str, bytes]]
    requests: dict[str, list[Request]]
    folder: Path


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """Pictures of one camera, shared out to two folders, and some that are invalid."""
    folder = tmp_path_factory.mktemp("judge")
    hall = sorted((BUNDLED_SAMPLES / "hall").glob("*.jpg"))[:12]
    datums = {
        "one": ("day [1]", hall[::2]),
        "two": ("day 2", [*hall[1::2], BUNDLED_SAMPLES / "broken" / "snapshot.jpg"]),
    }
    out, requests = {}, {}
    with WebService() as service:
        secrets = {"ALERT_URL": f"{service.url}/hook", "ALERT_TOKEN": "planted-token"}
        for run, datum in (("one", "one"), ("again", "one"), ("two", "two")):
            name, images = datums[datum]
            pfs = folder / datum / "pfs"
            shutil.rmtree(pfs, ignore_errors=True)
            for made in (f"pictures/{name}", "rules", "out"):
                (pfs / made).mkdir(parents=True)
            for image in images:
                shutil.copy(image, pfs / "pictures" / name)
            shutil.copy(BUNDLED_RULES, pfs / "rules" / "rules.yaml")
            asked_before = len(service.requests)
            done = run_datum(
                read_spec("judge"),
                pfs,
                pictures=str(pfs / "pictures" / name),
                rules=str(pfs / "rules"),
                MODEL="bundled",
                **(secrets if datum == "one" else {}),
            )
            assert done.returncode == 0, done.stderr
            out[run], requests[run] = tree(pfs / "out"), service.requests[asked_before:]
    return Judged(out, requests, folder)


def test_no_two_datums_write_one_file(judged: Judged) -> None:
    assert judged.out["one"].keys() & judged.out["two"].keys() == set()
    folders = {run: {path.split("/")[0] for path in files} for run, files in judged.out.items()}
    assert folders == {"one": {"day [1]"}, "again": {"day [1]"}, "two": {"day 2"}}
    assert any(path.startswith("day 2/invalid/bad_name/") for path in judged.out["two"])


def test_a_datum_that_is_tried_again_writes_the_same_and_sends_the_same_alerts(
    judged: Judged,
) -> None:
    """Its first output is thrown away, and with it the record of what was delivered."""
    assert judged.out["again"] == judged.out["one"]
    sent = {
        run: sorted(request.headers["Idempotency-Key"] for request in judged.requests[run])
        for run in ("one", "again")
    }
    assert sent["again"] == sent["one"]
    assert len(set(sent["one"])) == len(sent["one"]) > 0
    tokens = {one.headers["Authorization"] for one in judged.requests["one"]}
    assert tokens == {"Bearer planted-token"}
    assert not any(b"planted" in data for data in judged.out["one"].values())


def test_without_the_secret_no_alert_is_sent(judged: Judged) -> None:
    assert judged.requests["two"] == []
    records = [json.loads(data) for path, data in judged.out["two"].items() if "/alerts/" in path]
    outcomes = {target["outcome"] for record in records for target in record["targets"]}
    assert outcomes == {"not_sent"}


def test_the_chart_and_the_counts_are_over_all_datums(judged: Judged, tmp_path: Path) -> None:
    pfs = tmp_path / "pfs"
    for datum in ("one", "two"):
        shutil.copytree(judged.folder / datum / "pfs" / "out", pfs / "judge", dirs_exist_ok=True)
    (pfs / "out").mkdir()
    done = run_datum(read_spec("chart"), pfs, judge=str(pfs / "judge"))
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(pfs / "out")) == ["counts.csv", "threats.png"]
    with Image.open(pfs / "out" / "threats.png") as chart:
        chart.verify()
    with (pfs / "out" / "counts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    outputs = [pfs / "judge" / "day [1]", pfs / "judge" / "day 2"]
    for column in ("images", "threat_images", "threats", "alerts"):
        parts = [
            sum(getattr(row, column) for row in OutputScan(str(output)).counts())
            for output in outputs
        ]
        assert min(parts) > 0
        assert sum(int(row[column]) for row in rows) == sum(parts)
    windows = [{row.window_start for row in OutputScan(str(output)).counts()} for output in outputs]
    assert windows[0] & windows[1]
    assert len(rows) == len(windows[0] | windows[1])


def test_a_datum_whose_set_up_is_wrong_fails_and_says_why_in_one_line(tmp_path: Path) -> None:
    for folder in ("pictures/hall", "rules", "out"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(next((BUNDLED_SAMPLES / "hall").glob("*.jpg")), tmp_path / "pictures" / "hall")
    done = run_datum(
        read_spec("judge"),
        tmp_path,
        pictures=str(tmp_path / "pictures" / "hall"),
        MODEL="bundled",
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "rules.yaml" in line
