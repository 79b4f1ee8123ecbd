"""The file for Docker Compose: it fits the schema, and its services work together."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ftplib import FTP
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import jsonschema
import pytest
import yaml

from beam_pipeline.bundled import BUNDLED_RULES, BUNDLED_SAMPLES
from beam_pipeline.commands import run, serve
from beam_pipeline.runners.prism import VERSION
from beam_pipeline.web.access.users import add_user
from tests.beam_pipeline.web.serving import Browser
from tests.prism_program import prism_program
from tests.stores.servers import free_port

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "compose"
SCHEMA = Path(__file__).parent / "compose_spec" / "compose-spec.json"
PERSON = BUNDLED_SAMPLES / "hall" / "hall_20260131T173853Z.jpg"
PASSWORD = "planted-word"


def services() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]
    return services


def test_it_fits_the_schema_of_the_compose_specification() -> None:
    schema = json.loads(SCHEMA.read_text())
    compose = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    jsonschema.validate(compose, schema)
    compose["services"]["stream"]["comand"] = []
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(compose, schema)


def test_each_volume_is_there_and_only_its_writer_may_write() -> None:
    compose = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    mounts = {
        name: [mount for mount in service["volumes"] if isinstance(mount, str)]
        for name, service in compose["services"].items()
    }
    names = {mount.split(":")[0] for of_service in mounts.values() for mount in of_service}
    assert names == set(compose["volumes"])
    assert mounts == {
        "ftp": ["cameras:/srv/cameras"],
        "stream": [
            *("cameras:/srv/cameras:ro", "results:/srv/results"),
            "models:/home/beam/.cache",
        ],
        "pages": ["results:/srv/results:ro"],
        "console": ["results:/srv/results", "console:/srv/console"],
    }


def test_each_volume_is_at_a_folder_of_the_image_that_belongs_to_its_user() -> None:
    """Docker gives an empty volume the owner of the folder of the image at its place."""
    text = (FOLDER / "Dockerfile").read_text()
    (made,) = re.findall(r"install --owner 1000 --group 1000 --directory (.+)", text)
    compose = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    places = {
        mount.split(":")[1]
        for service in compose["services"].values()
        for mount in service["volumes"]
        if isinstance(mount, str)
    }
    assert set(made.split()) == places
    assert text.rstrip().endswith("USER 1000:1000")


def test_the_rules_are_mounted_as_a_folder_so_that_the_file_may_be_replaced() -> None:
    for name in ("stream", "console"):
        (mount,) = [mount for mount in services()[name]["volumes"] if isinstance(mount, dict)]
        assert (mount["source"], mount["target"]) == ("./rules", "/etc/beam-threats")
        assert mount["read_only"]


def test_git_and_the_image_leave_out_what_the_user_writes_there() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    for name in (".env", "secrets.env", "users.json", "rules/"):
        assert f"/deploy/compose/{name}" in ignored
    assert (FOLDER / ".dockerignore").read_text() == "*\n"


def test_the_command_line_of_the_ftp_server_has_no_password() -> None:
    ftp = services()["ftp"]
    assert "${FTP_PASSWORD" not in " ".join(ftp["command"])
    assert list(ftp["environment"]) == ["FTP_PASSWORD"]


def test_pages_are_for_this_machine_only() -> None:
    assert services()["pages"]["ports"] == ["127.0.0.1:8080:8080"]
    assert services()["console"]["ports"] == ["127.0.0.1:8000:8000"]


def test_the_console_has_its_users_as_a_secret_and_the_variables_of_the_stream() -> None:
    compose = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    console = compose["services"]["console"]
    assert compose["secrets"] == {"console_users": {"file": "./users.json"}}
    assert console["secrets"] == ["console_users"]
    assert console["env_file"] == compose["services"]["stream"]["env_file"]
    assert console["command"][0] == "serve"
    parsed = serve.parser().parse_args(console["command"][1:])
    assert (parsed.output, parsed.rules) == ("/srv/results", "/etc/beam-threats/rules.yaml")
    assert (parsed.users, parsed.bind) == ("/run/secrets/console_users", "0.0.0.0")
    assert parsed.index == "/srv/console"


def test_the_image_has_the_versions_that_were_tried() -> None:
    text = (FOLDER / "Dockerfile").read_text()
    assert re.findall(r"cmd/prism@v(\S+)", text) == [VERSION]
    (constraint,) = re.findall(r"^pyftpdlib==(\S+)", (ROOT / "constraints.txt").read_text(), re.M)
    assert re.findall(r"pyftpdlib==(\S+)", text) == [constraint]


def test_the_stream_is_one_of_this_program() -> None:
    parsed, others = run.parser().parse_known_args(services()["stream"]["command"])
    assert (parsed.input, parsed.output) == ("/srv/cameras", "/srv/results")
    assert (parsed.streaming, parsed.rules) == (True, "/etc/beam-threats/rules.yaml")
    assert others == ["--prism_location=/opt/beam_pipeline/prism"]


def wait_for(what: str, holds: Callable[[], object], seconds: float = 90) -> None:
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, f"not within {seconds} s: {what}"
        time.sleep(0.1)


@contextmanager
def running(name: str, places: dict[str, str], *more: str) -> Iterator[None]:
    """A service, without its container."""
    service = services()[name]
    program = service.get("entrypoint", ["python", "-m", "beam_pipeline"])
    command = [*program, *service["command"], *more]
    variables = dict(service.get("environment", {}))
    for old, new in places.items():
        command = [word.replace(old, new) for word in command]
        variables = {name: value.replace(old, new) for name, value in variables.items()}
    process = subprocess.Popen(
        [sys.executable, *command[1:]],
        cwd=ROOT,
        env={**os.environ, **variables},
        start_new_session=True,
    )
    assert PASSWORD not in " ".join(command)
    try:
        yield
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait(timeout=30)
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def test_an_image_that_is_uploaded_is_judged_and_the_report_served(tmp_path: Path) -> None:
    prism = prism_program()
    port, web, data, page = free_port(), free_port(), free_port(), free_port()
    add_user(str(tmp_path / "users.json"), "anna", "operator", PASSWORD)
    shutil.copy(BUNDLED_RULES, tmp_path / "rules.yaml")
    (tmp_path / "cameras").mkdir()
    places = {
        "${FTP_PASSWORD:?give the password of the cameras in .env}": PASSWORD,
        "${FTP_ADDRESS:?give the address of this machine in .env}": "127.0.0.1",
        "--port=2121": f"--port={port}",
        "30000-30009": f"{data}-{data + 1}",
        "8080": str(web),
        "--port=8000": f"--port={page}",
        "127.0.0.1:8000": f"127.0.0.1:{page}",
        "/run/secrets/console_users": str(tmp_path / "users.json"),
        "/srv/console": str(tmp_path / "console"),
        "/srv/cameras": str(tmp_path / "cameras"),
        "/srv/results": str(tmp_path / "results"),
        "/etc/beam-threats/rules.yaml": str(tmp_path / "rules.yaml"),
        "/opt/beam_pipeline/prism": str(prism),
    }
    results = tmp_path / "results"

    def connected() -> bool:
        try:
            ftp.connect("127.0.0.1", port, timeout=20)
        except OSError:
            return False
        return True

    ftp = FTP()
    with (
        running("ftp", places),
        running("stream", places, "--model=bundled", "--report_every=1s"),
        running("pages", places),
    ):
        wait_for("the FTP server", connected)
        ftp.login("camera", PASSWORD)
        with PERSON.open("rb") as file:
            ftp.storbinary(f"STOR {PERSON.name}", file)
        ftp.quit()
        wait_for("a verdict", lambda: list(results.glob("final/hall/*.json")))
        wait_for("the report", lambda: (results / "report" / "report.html").exists())

        def served() -> bool:
            with urlopen(f"http://127.0.0.1:{web}/report.html", timeout=20) as page:
                return b"hall" in page.read()

        wait_for("the camera in the report that is served", served)
        with running("console", places):
            check = [sys.executable, *services()["console"]["healthcheck"]["test"][2:]]
            healthy = [word.replace("127.0.0.1:8000", f"127.0.0.1:{page}") for word in check]
            wait_for("a healthy console", lambda: subprocess.run(healthy).returncode == 0)
            console = Browser(f"http://127.0.0.1:{page}")
            assert console.log_in("anna", PASSWORD).status_code == 303
            wait_for("the alert", lambda: 'alt="Image of hall"' in console.get("/alerts").text)
