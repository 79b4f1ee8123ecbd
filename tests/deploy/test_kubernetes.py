"""The Kubernetes manifests: what a cluster would refuse, or take and do wrong."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import requests
import yaml
from apache_beam.options.pipeline_options import FlinkRunnerOptions
from apache_beam.runners.portability.flink_runner import FlinkJarJobServer
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.transforms.environments import python_sdk_dependencies

from beam_pipeline import cli
from beam_pipeline.bundled import BUNDLED_SAMPLES
from beam_pipeline.console.exceptions import SetupError
from beam_pipeline.console.parsing import OneLineParser
from beam_pipeline.job import options
from beam_pipeline.job.options import JobOptions
from beam_pipeline.runners.beam_options import beam_options
from tests.absent import give_up
from tests.beam_pipeline.web.serving import served, users_file, write_small_output
from tests.conftest import Run
from tests.deploy.manifests import ROOT, Manifest, Pod, check, one, pods, render
from tests.flink.stream_job import flink_cluster
from tests.transforms.web_service import WebService, status

OVERLAYS = ("batch", "stream", "console")
# The oldest that docs/kubernetes.md promises, and a recent one.
KUBERNETES = ("1.31", "1.36")
OUR_IMAGES = re.compile(r"registry\.example\.com/beam-threats(-submit)?:latest")


def pod_of(name: str, owner: str) -> Pod:
    (found,) = (pod for pod in pods(render(name)) if pod.owner == owner)
    return found


def job_arguments(name: str, owner: str) -> list[str]:
    """The command line of `python -m beam_pipeline` in a pod."""
    arguments: list[str] = pod_of(name, owner).container("beam-threats")["args"]
    return arguments


def value_of(arguments: list[str], option: str) -> str:
    (value,) = (word[len(option) + 1 :] for word in arguments if word.startswith(f"{option}="))
    return value


def parse(arguments: list[str]) -> tuple[JobOptions, Any]:
    """What the job reads from a command line: its own options and Beam's."""
    parser = OneLineParser(allow_abbrev=False)
    options.add_arguments(parser)
    own, rest = parser.parse_known_args(arguments)
    return options.to_options(own), beam_options(rest, streaming=own.streaming)


# ---------------------------------------------------------------------------- schemas


@pytest.mark.parametrize("kubernetes", KUBERNETES)
@pytest.mark.parametrize("name", OVERLAYS)
def test_manifests_fit_their_schemas(name: str, kubernetes: str) -> None:
    manifests = render(name)
    kinds = {"batch": "CronJob", "stream": "FlinkDeployment", "console": "Deployment"}
    assert kinds[name] in {manifest["kind"] for manifest in manifests}
    for manifest in manifests:
        assert manifest["metadata"]["namespace"] == "beam-threats"
        check(manifest, kubernetes)


def _typo(at: Manifest) -> None:
    at["replica"] = 2


def _number(at: Manifest) -> None:
    at["heartbeat.interval"] = 3000


@pytest.mark.parametrize(
    ("name", "kind", "path", "change"),
    [
        ("batch", "CronJob", ("spec",), _typo),
        ("batch", "CronJob", ("spec", "jobTemplate", "spec", "template", "spec"), _typo),
        ("stream", "Job", ("spec", "template", "spec", "initContainers", 0), _typo),
        ("stream", "FlinkDeployment", (), _typo),
        ("stream", "FlinkDeployment", ("metadata",), _typo),
        ("stream", "FlinkDeployment", ("spec",), _typo),
        ("stream", "FlinkDeployment", ("spec", "taskManager"), _typo),
        ("stream", "FlinkDeployment", ("spec", "jobManager", "resource"), _typo),
        (
            *("stream", "FlinkDeployment"),
            *(("spec", "taskManager", "podTemplate", "spec", "containers", 1), _typo),
        ),
        # The operator's settings are all strings; unquoted, this one is a number.
        ("stream", "FlinkDeployment", ("spec", "flinkConfiguration"), _number),
    ],
)
def test_a_manifest_with_a_mistake_is_refused(
    name: str, kind: str, path: tuple[str | int, ...], change: Callable[[Manifest], None]
) -> None:
    manifest = one(render(name), kind)
    at: Any = manifest
    for step in path:
        at = at[step]
    change(at)
    with pytest.raises(jsonschema.ValidationError, match=r"'replica' was unexpected|3000 is not"):
        check(manifest, KUBERNETES[-1])


# ---------------------------------------------------------------------------- what runs


@pytest.mark.parametrize(("name", "owner"), [("batch", "CronJob"), ("stream", "Job")])
def test_arguments_are_options_that_exist(name: str, owner: str) -> None:
    arguments = job_arguments(name, owner)
    own, _ = parse(arguments)
    assert own.streaming == (name == "stream")
    with pytest.raises(SetupError, match="no such option: --paralellism"):
        parse([*arguments, "--paralellism=3"])


def test_the_console_is_served_with_users_over_the_results_of_the_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, *arguments = job_arguments("console", "Deployment")
    assert command == "serve"
    output = value_of(arguments, "--output")
    assert output == value_of(job_arguments("stream", "Job"), "--output")
    pod = pod_of("console", "Deployment")
    users = value_of(arguments, "--users")
    assert users == f"{pod.mounted('beam-threats', 'users')}/users.json"
    assert value_of(arguments, "--index") == pod.mounted("beam-threats", "index")
    # With an output, users and rules of this machine, it answers at the address of the probes.
    write_small_output(tmp_path / "out")
    (tmp_path / "rules.yaml").write_text("version: 1\n")
    here = {
        "--output": tmp_path / "out",
        "--rules": tmp_path / "rules.yaml",
        "--users": users_file(tmp_path / "users.json"),
        "--port": 0,
    }
    words = [f"{name}={here.get(name, value)}" for name, value in
             (word.split("=") for word in arguments) if name != "--index"]  # fmt: skip
    container = pod.container("beam-threats")
    (port,) = container["ports"]
    assert value_of(arguments, "--port") == str(port["containerPort"])
    with served(tmp_path / "out", tmp_path / "index", *words) as console:
        url = console.url.replace("0.0.0.0", "127.0.0.1")
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            get = container[probe]["httpGet"]
            assert get["port"] == port["name"]
            assert requests.get(url + get["path"], timeout=20).status_code == 200
        assert "Log in" in requests.get(url, timeout=20).text
    service = one(render("console"), "Service")["spec"]
    assert service["selector"] == pod.template["metadata"]["labels"]
    assert service["ports"] == [{"name": "http", "port": 8000, "targetPort": "http"}]


def test_the_console_can_not_connect_to_flink() -> None:
    labels = pod_of("console", "Deployment").template["metadata"]["labels"].items()
    for policy in render("stream"):
        if policy["kind"] == "NetworkPolicy":
            for rule in policy["spec"]["ingress"]:
                for peer in rule["from"]:
                    admitted = peer.get("podSelector", {}).get("matchLabels", {"no": "pod"})
                    assert not admitted.items() <= labels


def test_the_job_server_takes_the_streams_arguments() -> None:
    try:
        jar = flink_cluster.fetch().job_server_jar
    except flink_cluster.ClusterError as error:
        give_up(f"no Flink here: {error}")
    _, given = parse(job_arguments("stream", "Job"))
    given.view_as(FlinkRunnerOptions).flink_job_server_jar = str(jar)
    server = FlinkJarJobServer(given)
    try:
        # Flink's own options are known to the job server only, with their kinds: a flag that is
        # given a value, say, is refused here and nowhere earlier.
        taken = JobServiceHandle(server.start(), given).get_pipeline_options()
    finally:
        server.stop()
    for name in (
        "checkpointing_interval",
        "externalized_checkpoints_enabled",
        "retain_externalized_checkpoints_on_cancellation",
    ):
        assert f"beam:option:{name}:v1" in taken


def test_the_batch_job_runs_as_its_container_runs_it(run_job: Run, tmp_path: Path) -> None:
    pod = pod_of("batch", "CronJob")
    folders = {
        pod.mounted("beam-threats", name): name for name in ("pictures", "results", "models")
    }
    for camera in ("hall", "front-door"):
        for path in sorted((BUNDLED_SAMPLES / camera).iterdir())[:8]:
            target = tmp_path / "pictures" / camera / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    rules = one(render("batch"), "ConfigMap")["data"]["rules.yaml"]
    (tmp_path / "rules.yaml").write_text(rules)
    arguments = []
    with WebService() as service:
        for argument in job_arguments("batch", "CronJob"):
            option, _, value = argument.partition("=")
            here = {
                "--model": "bundled",
                "--alert_url": service.url,
                "--rules": tmp_path / "rules.yaml",
            }
            if option in here:
                value = here[option]
            elif value in folders:
                value = tmp_path / folders[value]
            arguments.append(f"{option}={value}" if value else option)
        finished = run_job(*arguments, ALERT_TOKEN="t0ken", MODEL_CACHE=str(tmp_path / "models"))
    assert finished.returncode == 0, finished.stderr
    assert len(list((tmp_path / "results" / "final" / "hall").iterdir())) == 8
    assert (tmp_path / "results" / "chart" / "threats.png").exists()
    assert service.requests
    assert {request.headers["Authorization"] for request in service.requests} == {"Bearer t0ken"}


@pytest.mark.parametrize("name", OVERLAYS)
def test_rules_are_right_and_every_worker_finds_them(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = one(render(name), "ConfigMap", "beam-threats-rules")
    (file, text), *others = config["data"].items()
    assert not others
    (tmp_path / file).write_text(text)
    assert cli.main(["rules", "check", str(tmp_path / file)]) == 0
    assert "front-door" in capsys.readouterr().out
    readers = {
        "batch": [("CronJob", "beam-threats")],
        "stream": [("Job", "beam-threats"), ("taskManager", "beam-workers")],
        "console": [("Deployment", "beam-threats")],
    }[name]
    wanted = value_of(job_arguments(name, readers[0][0]), "--rules")
    for owner, container in readers:
        pod = pod_of(name, owner)
        (volume,) = (
            volume["name"]
            for volume in pod.spec["volumes"]
            if volume.get("configMap", {}).get("name") == config["metadata"]["name"]
        )
        assert f"{pod.mounted(container, volume)}/{file}" == wanted


def test_the_stream_is_submitted_to_the_cluster_that_is_there() -> None:
    manifests = render("stream")
    flink = one(manifests, "FlinkDeployment")
    arguments = job_arguments("stream", "Job")
    # The operator names the service after the cluster.
    service = f"{flink['metadata']['name']}-rest:8081"
    assert value_of(arguments, "--flink_master") == service
    task_manager = flink["spec"]["taskManager"]
    slots = task_manager["replicas"] * int(
        flink["spec"]["flinkConfiguration"]["taskmanager.numberOfTaskSlots"]
    )
    assert value_of(arguments, "--parallelism") == str(slots)
    waiting = pod_of("stream", "Job").container("wait-for-flink")["args"]
    assert value_of(waiting, "--rest") == f"http://{service}"
    assert value_of(waiting, "--slots") == str(slots)
    pool = pod_of("stream", "taskManager").container("beam-workers")
    assert pool["args"] == ["--worker_pool"]
    (port,) = (port["containerPort"] for port in pool["ports"])
    assert value_of(arguments, "--environment_config") == f"localhost:{port}"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert pool[probe]["tcpSocket"]["port"] == port


def test_models_use_as_many_threads_as_their_container_has_processors() -> None:
    workers = pod_of("stream", "taskManager").container("beam-workers")
    batch = pod_of("batch", "CronJob").container("beam-threats")
    for container, arguments in (
        (workers, job_arguments("stream", "Job")),
        (batch, job_arguments("batch", "CronJob")),
    ):
        threads = value_of(arguments, "--model_threads")
        assert container["resources"]["limits"]["cpu"] == threads


def test_flink_has_the_settings_of_the_local_cluster() -> None:
    here = yaml.safe_load(
        re.sub(r"\$\{metrics\}", "", (ROOT.parent / "flink" / "config.yaml").read_text())
    )
    flink = one(render("stream"), "FlinkDeployment")["spec"]
    there = flink["flinkConfiguration"]
    assert here.pop("jobmanager.memory.process.size") == flink["jobManager"]["resource"]["memory"]
    assert here.pop("taskmanager.memory.process.size") == flink["taskManager"]["resource"]["memory"]
    # Addresses and folders are the pods' own.
    own = re.compile(r".*(address|host|port)$|io\.tmp\.dirs")
    for key, value in here.items():
        if own.fullmatch(key):
            continue
        if "$" in str(value):
            assert key in there
        else:
            text = str(value).lower() if isinstance(value, bool) else str(value)
            assert there[key] == text, key
    assert there["metrics.reporter.prom.port"] == "9249"


def test_flink_is_the_version_that_the_job_server_is_for() -> None:
    flink = one(render("stream"), "FlinkDeployment")["spec"]
    version = "1.20.5"
    assert version == flink_cluster.FLINK_VERSION
    assert flink["image"] == f"flink:{version}-java17"
    assert flink["flinkVersion"] == "v" + "_".join(version.split(".")[:2])
    for part in ("jobManager", "taskManager"):
        main = pod_of("stream", part).container("flink-main-container")
        plugins = {entry["name"]: entry["value"] for entry in main["env"]}[
            "ENABLE_BUILT_IN_PLUGINS"
        ]
        assert plugins == f"flink-s3-fs-hadoop-{version}.jar"


def test_nothing_is_staged_that_workers_in_another_pod_would_look_for(tmp_path: Path) -> None:
    arguments = job_arguments("stream", "Job")
    quiet = "--experiments=disable_logging_submission_environment"
    assert python_sdk_dependencies(parse(arguments)[1], str(tmp_path)) == []
    arguments.remove(quiet)
    staged = python_sdk_dependencies(parse(arguments)[1], str(tmp_path))
    assert [artifact.role_payload for artifact in staged] != []


# ---------------------------------------------------------------------------- submitted once


@pytest.fixture
def flink() -> Iterator[WebService]:
    with WebService() as service:
        yield service


def wait_for_flink(service: WebService, timeout: float = 30) -> subprocess.CompletedProcess[str]:
    """Runs what the submitting Job runs first, as it does, but on this Flink."""
    arguments = pod_of("stream", "Job").container("wait-for-flink")["args"]
    command = [sys.executable, str(ROOT / "stream" / "wait_for_flink.py"), *arguments]
    command += [f"--rest={service.url}", f"--timeout_seconds={timeout}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def jobs(*states: str) -> Any:
    listed = [{"jid": str(number), "state": state} for number, state in enumerate(states)]
    return status(200, json.dumps({"jobs": listed}).encode())


def slots(free: int) -> Any:
    return status(200, json.dumps({"slots-available": free}).encode())


def test_the_stream_waits_for_a_cluster_with_room(flink: WebService) -> None:
    flink.answers = [
        *(status(503), status(200, b"<html>"), jobs(), slots(0)),
        *(jobs("FINISHED", "CANCELED", "FAILED"), slots(2)),
    ]
    finished = wait_for_flink(flink)
    assert finished.returncode == 0, finished.stderr
    assert [request.path for request in flink.requests][-2:] == ["/jobs/overview", "/overview"]
    assert "0 free slots of the 2 that are needed" in finished.stderr


def test_a_cluster_without_room_is_given_up_on(flink: WebService) -> None:
    flink.answers = [jobs(), slots(1)]
    finished = wait_for_flink(flink, timeout=0)
    assert finished.returncode == 1
    assert "1 free slots of the 2" in finished.stderr


@pytest.mark.parametrize("state", ["RUNNING", "RESTARTING", "INITIALIZING", "SUSPENDED"])
def test_a_stream_is_not_submitted_beside_another(flink: WebService, state: str) -> None:
    flink.answers = [jobs("FAILED", state)]
    finished = wait_for_flink(flink)
    assert finished.returncode == 2
    assert f"runs a job already: 1 ({state})" in finished.stderr


def test_a_submission_is_never_tried_again() -> None:
    job = one(render("stream"), "Job")["spec"]
    assert job["backoffLimit"] == 0
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    # A Job that removed itself would be applied anew.
    assert "ttlSecondsAfterFinished" not in job


def test_batch_runs_do_not_overlap_and_a_wrong_set_up_is_not_tried_again() -> None:
    cron = one(render("batch"), "CronJob")["spec"]
    assert cron["concurrencyPolicy"] == "Forbid"
    assert parse(job_arguments("batch", "CronJob"))[0].resume
    failing, *_ = cron["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    assert failing["action"] == "FailJob"
    assert failing["onExitCodes"]["containerName"] == "beam-threats"
    assert failing["onExitCodes"]["values"] == [2]


# ---------------------------------------------------------------------------- safety

_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|ACCESS_KEY|CREDENTIAL")
_SECRET_VALUE = re.compile(
    r"AKIA[0-9A-Z]{16}|(secret|access)-key|-----BEGIN|://[^/\s]*:[^/\s]*@", re.I
)


def secrets_in(manifest: Manifest) -> list[str]:
    """Where a manifest holds what should be in a Secret."""
    found = ["a Secret"] if manifest["kind"] == "Secret" else []
    for pod in pods([manifest]):
        for container in pod.containers:
            for entry in container.get("env", []):
                if _SECRET_NAME.search(entry["name"]) and "secretKeyRef" not in entry.get(
                    "valueFrom", {}
                ):
                    found.append(entry["name"])
    return found + _SECRET_VALUE.findall(yaml.safe_dump(manifest))


@pytest.mark.parametrize("name", OVERLAYS)
def test_no_manifest_holds_a_secret(name: str) -> None:
    assert [found for manifest in render(name) for found in secrets_in(manifest)] == []


@pytest.mark.parametrize(
    ("planted", "arguments"),
    [
        ({"name": "ALERT_TOKEN", "value": "abc"}, []),
        ({"name": "X", "value": "AKIAIOSFODNN7EXAMPLE"}, []),
        ({"name": "X", "value": "x"}, ["--alert_url=https://me:pass@alerts.example.com"]),
    ],
)
def test_a_secret_in_a_manifest_would_be_found(planted: Manifest, arguments: list[str]) -> None:
    manifest = one(render("batch"), "CronJob")
    (pod,) = pods([manifest])
    pod.container("beam-threats")["env"].append(planted)
    pod.container("beam-threats")["args"] += arguments
    assert secrets_in(manifest)


def test_the_token_is_where_alerts_are_sent_and_nowhere_else() -> None:
    holders = {
        (pod.owner, container["name"])
        for name in OVERLAYS
        for pod in pods(render(name))
        for container in pod.containers
        if "ALERT_TOKEN" in {entry["name"] for entry in container.get("env", [])}
    }
    assert holders == {("CronJob", "beam-threats"), ("taskManager", "beam-workers")}


@pytest.mark.parametrize("name", OVERLAYS)
def test_containers_are_confined_and_have_bounds(name: str) -> None:
    for pod in pods(render(name)):
        around = pod.spec["securityContext"]
        assert around["runAsNonRoot"] is True
        assert around["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod.containers:
            inner = container["securityContext"]
            assert inner["allowPrivilegeEscalation"] is False
            assert inner["capabilities"] == {"drop": ["ALL"]}
            user = inner.get("runAsUser", around.get("runAsUser"))
            # Flink's container is bounded by its FlinkDeployment's `resource`.
            if container["name"] == "flink-main-container":
                assert user == 9999
                continue
            assert user == 1000
            assert inner["readOnlyRootFilesystem"] is True
            assert OUR_IMAGES.fullmatch(container["image"])
            for bound in ("requests", "limits"):
                assert container["resources"][bound].keys() >= {"cpu", "memory"}
            # A file that is mounted by subPath never shows an edit.
            assert all("subPath" not in mount for mount in container["volumeMounts"])


@pytest.mark.parametrize("name", OVERLAYS)
def test_what_pods_mount_is_there(name: str) -> None:
    manifests = render(name)
    there = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests}
    mounted = [volume for pod in pods(manifests) for volume in pod.spec.get("volumes", [])]
    assert mounted
    for volume in mounted:
        if "configMap" in volume:
            assert ("ConfigMap", volume["configMap"]["name"]) in there
        if "persistentVolumeClaim" in volume:
            claim = volume["persistentVolumeClaim"]["claimName"]
            assert ("PersistentVolumeClaim", claim) in there


def test_flink_is_open_to_its_own_pods_its_operator_and_prometheus_only() -> None:
    manifests = render("stream")
    policies = [manifest["spec"] for manifest in manifests if manifest["kind"] == "NetworkPolicy"]
    for pod in pods(manifests):
        labels = pod.template["metadata"]["labels"].items()
        selecting = [
            rule
            for policy in policies
            if policy["podSelector"]["matchLabels"].items() <= labels
            for rule in policy["ingress"]
        ]
        assert selecting, pod.owner
        open_to_all = [
            rule for rule in selecting if any("podSelector" not in peer for peer in rule["from"])
        ]
        ports = {port["port"] for rule in open_to_all for port in rule["ports"]}
        assert ports == ({9249, 8081} if pod.owner == "jobManager" else {9249})
        (inside,) = (rule for rule in selecting if rule not in open_to_all)
        assert inside["from"][0]["podSelector"]["matchLabels"].items() <= labels
