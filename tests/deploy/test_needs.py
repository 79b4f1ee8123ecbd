"""Kubernetes' and Pachyderm's manifests against what the containers need, not only their schemas.

A manifest may fit its schema and lack a writable folder, a secret, a variable or an open port.
Names, numbers and addresses stand here literally.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.absent import give_up
from tests.deploy.manifests import Manifest, Pod, one, pods, render
from tests.deploy.pachyderm import read_spec
from tests.flink.stream_job import flink_cluster

DOCS = Path(__file__).resolve().parents[2] / "docs"
REPORTER = "org.apache.flink.metrics.prometheus.PrometheusReporterFactory"

# Our image's containers: what each writes to, reads and is told; by overlay, owner and name.
NEEDS: dict[tuple[str, str, str], dict[str, Any]] = {
    ("batch", "CronJob", "beam-threats"): {
        "writes": {"/tmp", "/results", "/models"},
        "reads": {"/pictures", "/etc/beam-threats"},
        "variables": {
            "ALERT_TOKEN": ("beam-threats-alerts", "ALERT_TOKEN"),
            "MARK_KEY": ("beam-threats-alerts", "MARK_KEY"),
            "MODEL_CACHE": "/models",
            "MPLCONFIGDIR": "/tmp/matplotlib",
        },
        "secrets": set(),
    },
    ("stream", "Job", "wait-for-flink"): {
        "writes": set(),
        "reads": {"/scripts"},
        "variables": {},
        "secrets": set(),
    },
    ("stream", "Job", "beam-threats"): {
        "writes": {"/tmp"},
        "reads": {"/etc/beam-threats"},
        "variables": {
            "AWS_DEFAULT_REGION": "eu-central-1",
            "MODEL_CACHE": "/tmp/models",
            "MPLCONFIGDIR": "/tmp/matplotlib",
        },
        "secrets": {"beam-threats-s3"},
    },
    ("stream", "taskManager", "beam-workers"): {
        "writes": {"/tmp"},
        "reads": {"/etc/beam-threats"},
        "variables": {
            "ALERT_TOKEN": ("beam-threats-alerts", "ALERT_TOKEN"),
            "MARK_KEY": ("beam-threats-alerts", "MARK_KEY"),
            "AWS_DEFAULT_REGION": "eu-central-1",
            "MODEL_CACHE": "/tmp/models",
            "MPLCONFIGDIR": "/tmp/matplotlib",
        },
        "secrets": {"beam-threats-s3"},
    },
    **{
        ("stream", owner, "flink-main-container"): {
            "writes": set(),  # Its image's own folders: its root is no read-only one.
            "reads": set(),
            "variables": {
                "ENABLE_BUILT_IN_PLUGINS": "flink-s3-fs-hadoop-1.20.5.jar",
                "AWS_REGION": "eu-central-1",
            },
            "secrets": {"beam-threats-s3"},
        }
        for owner in ("jobManager", "taskManager")
    },
}


def unmet(manifests: list[Manifest], overlay: str) -> list[str]:
    """What containers need and are not given, or are given and should not be."""
    faults = []
    found = {}
    for pod in pods(manifests):
        volumes = {volume["name"]: volume for volume in pod.spec.get("volumes", [])}
        for container in pod.containers:
            name = overlay, pod.owner, container["name"]
            found[name] = {
                "writes": _mounts(container, volumes, can_be_written=True),
                "reads": _mounts(container, volumes, can_be_written=False),
                "variables": _variables(container),
                "secrets": {source["secretRef"]["name"] for source in container.get("envFrom", [])},
            }
    for name in NEEDS:
        if name[0] == overlay:
            faults += [
                f"{'/'.join(name)}: {what} {found.get(name, {}).get(what)}, not {needed}"
                for what, needed in NEEDS[name].items()
                if found.get(name, {}).get(what) != needed
            ]
    return faults + [f"{name}: unknown" for name in found if name not in NEEDS]


def _mounts(container: Manifest, volumes: Manifest, *, can_be_written: bool) -> set[str]:
    paths = set()
    for mount in container.get("volumeMounts", []):
        volume = volumes[mount["name"]]
        claim = volume.get("persistentVolumeClaim", {})
        read_only = mount.get("readOnly") or claim.get("readOnly") or "configMap" in volume
        if bool(read_only) != can_be_written:
            paths.add(mount["mountPath"])
    return paths


def _variables(container: Manifest) -> dict[str, Any]:
    variables: dict[str, Any] = {}
    for entry in container.get("env", []):
        key = entry.get("valueFrom", {}).get("secretKeyRef")
        variables[entry["name"]] = (key["name"], key["key"]) if key else entry["value"]
    return variables


@pytest.mark.parametrize("overlay", ["batch", "stream"])
def test_containers_have_what_they_need(overlay: str) -> None:
    assert unmet(render(overlay), overlay) == []


def _without_tmp(container: Manifest) -> None:
    container["volumeMounts"] = [
        mount for mount in container["volumeMounts"] if mount["name"] != "tmp"
    ]


def _read_only(container: Manifest) -> None:
    for mount in container["volumeMounts"]:
        mount["readOnly"] = True


def _without_cache(container: Manifest) -> None:
    container["env"] = [
        variable for variable in container["env"] if variable["name"] != "MODEL_CACHE"
    ]


def _other_secret(container: Manifest) -> None:
    for entry in container["env"]:
        if "valueFrom" in entry:
            entry["valueFrom"]["secretKeyRef"]["name"] = "beam-threats-alert"


@pytest.mark.parametrize("change", [_without_tmp, _read_only, _without_cache, _other_secret])
def test_a_container_that_lacks_something_is_found(change: Callable[[Manifest], None]) -> None:
    for overlay, kind, owner, name in (
        ("batch", "CronJob", "CronJob", "beam-threats"),
        ("stream", "FlinkDeployment", "taskManager", "beam-workers"),
    ):
        manifests = render(overlay)
        (pod,) = (pod for pod in pods([one(manifests, kind)]) if pod.owner == owner)
        change(pod.container(name))
        assert unmet(manifests, overlay)


@pytest.mark.parametrize("overlay", ["batch", "stream"])
def test_what_a_container_writes_lies_where_it_may(overlay: str) -> None:
    """The root of our image can't be written: caches, results and what libraries unpack."""
    for pod in pods(render(overlay)):
        for container in pod.containers:
            if not container["securityContext"].get("readOnlyRootFilesystem"):
                continue
            volumes = {volume["name"]: volume for volume in pod.spec.get("volumes", [])}
            writable = _mounts(container, volumes, can_be_written=True)
            paths = [value for value in _variables(container).values() if str(value)[0] == "/"]
            for argument in container.get("args", []):
                if argument.startswith("--output=/"):
                    paths.append(argument.partition("=")[2])
            for path in paths:
                assert any(f"{path}/".startswith(f"{folder}/") for folder in writable), path


def test_temporary_folders_have_bounds() -> None:
    sizes = {
        (overlay, pod.owner): volume["emptyDir"]["sizeLimit"]
        for overlay in ("batch", "stream")
        for pod in pods(render(overlay))
        for volume in pod.spec.get("volumes", [])
        if "emptyDir" in volume
    }
    assert sizes == {
        ("batch", "CronJob"): "2Gi",
        ("stream", "Job"): "4Gi",
        ("stream", "taskManager"): "4Gi",
    }


def _secrets_of(page: str) -> dict[str, set[str]]:
    """The secrets that a page has its reader make, with their keys."""
    text = (DOCS / page).read_text()
    made = re.findall(r"create secret generic (\S+) --from-env-file \S+ +# (.*)", text)
    return {name: set(keys.split(", ")) for name, keys in made}


def test_secrets_are_those_that_the_page_has_its_reader_make() -> None:
    made = _secrets_of("kubernetes.md")
    assert made == {
        "beam-threats-alerts": {"ALERT_TOKEN", "MARK_KEY"},
        "beam-threats-s3": {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"},
    }
    for needs in NEEDS.values():
        assert needs["secrets"] <= set(made)
        for value in needs["variables"].values():
            if isinstance(value, tuple):
                assert value[1] in made[value[0]]


def test_the_console_checks_links_with_the_key_that_signs_them() -> None:
    (container,) = one(render("console"), "Deployment")["spec"]["template"]["spec"]["containers"]
    (key,) = [entry for entry in container["env"] if entry["name"] == "MARK_KEY"]
    signing = [
        entry
        for folder in ("batch", "stream")
        for entry in re.findall(
            r"- name: MARK_KEY\n +valueFrom:\n +secretKeyRef:\n +name: (\S+)\n +key: (\S+)\n"
            r" +optional: (\w+)",
            "".join(
                path.read_text()
                for path in (DOCS.parent / "deploy" / "kubernetes" / folder).glob("*.yaml")
            ),
        )
    ]
    reference = key["valueFrom"]["secretKeyRef"]
    assert signing == [("beam-threats-alerts", "MARK_KEY", "true")] * 2
    assert reference == {"name": "beam-threats-alerts", "key": "MARK_KEY", "optional": True}


def test_a_jobmanager_that_dies_comes_back_with_its_jobs() -> None:
    spec = one(render("stream"), "FlinkDeployment")["spec"]
    settings = spec["flinkConfiguration"]
    assert settings["high-availability.type"] == "kubernetes"
    assert settings["high-availability.storageDir"] == "s3://example-cameras/flink/ha"
    assert settings["execution.checkpointing.dir"] == "s3://example-cameras/flink/checkpoints"
    assert settings["execution.checkpointing.savepoint-dir"] == (
        "s3://example-cameras/flink/savepoints"
    )
    assert spec["serviceAccount"] == "flink"  # May write the ConfigMaps that say who leads.
    assert spec["mode"] == "standalone"


def test_prometheus_finds_the_reporter_and_its_port() -> None:
    spec = one(render("stream"), "FlinkDeployment")["spec"]
    settings = spec["flinkConfiguration"]
    assert settings["metrics.reporter.prom.factory.class"] == REPORTER
    assert settings["metrics.reporter.prom.port"] == "9249"
    for pod in pods(render("stream")):
        if pod.owner == "Job":
            continue
        annotations = pod.template["metadata"]["annotations"]
        assert annotations["prometheus.io/scrape"] == "true"
        assert annotations["prometheus.io/port"] == "9249"
        ports = pod.container("flink-main-container")["ports"]
        assert ports == [{"name": "metrics", "containerPort": 9249}]


def test_the_reporter_s_class_is_one_that_flink_has() -> None:
    try:
        plugins = Path(flink_cluster.fetch().flink, "plugins")
    except flink_cluster.ClusterError as error:
        give_up(f"no Flink here: {error}")
    (jar,) = plugins.glob("metrics-prometheus/*.jar")
    assert REPORTER.replace(".", "/") + ".class" in zipfile.ZipFile(jar).namelist()
    assert f"metrics.reporter.prom.factory.class: {REPORTER}\n" in flink_cluster._metrics("9250")
    assert "metrics.reporter.prom.port: 9250\n" in flink_cluster._metrics("9250")


# ---------------------------------------------------------------------------- who reaches whom

OPERATOR = ("flink-operator", {"app.kubernetes.io/name": "flink-kubernetes-operator"})
PROMETHEUS = ("monitoring", {"app.kubernetes.io/name": "prometheus"})
STRANGER = ("beam-threats", {"app.kubernetes.io/part-of": "something-else"})
ELSEWHERE = ("default", {"app.kubernetes.io/part-of": "beam-threats"})


def _selects(selector: Manifest, labels: Manifest) -> bool:
    assert set(selector) <= {"matchLabels"}, selector
    return selector.get("matchLabels", {}).items() <= labels.items()


def reaches(
    manifests: list[Manifest], source: tuple[str, Manifest], target: Pod, port: int
) -> bool:
    """Whether a pod, by its namespace and labels, may open a port of another.

    As Kubernetes decides it: a pod that no policy selects is open to all.
    """
    namespace, labels = source
    selecting = [
        manifest["spec"]
        for manifest in manifests
        if manifest["kind"] == "NetworkPolicy"
        and _selects(manifest["spec"]["podSelector"], target.template["metadata"]["labels"])
        and "Ingress" in manifest["spec"].get("policyTypes", ["Ingress"])
    ]
    if not selecting:
        return True

    def admits(peer: Manifest) -> bool:
        assert set(peer) <= {"podSelector", "namespaceSelector"}, peer
        if "namespaceSelector" in peer:
            names = {"kubernetes.io/metadata.name": namespace}
            if not _selects(peer["namespaceSelector"], names):
                return False
        elif namespace != "beam-threats":
            return False
        return _selects(peer.get("podSelector", {}), labels)

    return any(
        (not rule.get("from") or any(map(admits, rule["from"])))
        and (not rule.get("ports") or port in {allowed["port"] for allowed in rule["ports"]})
        for policy in selecting
        for rule in policy.get("ingress", [])
    )


def test_who_reaches_which_port_of_the_stream() -> None:
    manifests = render("stream")
    by_owner = {pod.owner: pod for pod in pods(manifests)}
    own = {
        owner: ("beam-threats", pod.template["metadata"]["labels"])
        for owner, pod in by_owner.items()
    }
    sources = {**own, "operator": OPERATOR, "prometheus": PROMETHEUS}
    sources |= {"stranger": STRANGER, "elsewhere": ELSEWHERE}
    open_to = {
        (target, port): {
            name
            for name, source in sources.items()
            if reaches(manifests, source, by_owner[target], port)
        }
        for target, port in (
            *(("jobManager", 8081), ("jobManager", 6123), ("jobManager", 9249)),
            *(("taskManager", 6122), ("taskManager", 50000), ("taskManager", 9249)),
            ("Job", 8099),
        )
    }
    ours = {"Job", "jobManager", "taskManager"}
    assert open_to == {
        ("jobManager", 8081): ours | {"operator"},
        ("jobManager", 6123): ours,
        ("jobManager", 9249): set(sources),
        ("taskManager", 6122): ours,
        ("taskManager", 50000): ours,
        ("taskManager", 9249): set(sources),
        ("Job", 8099): ours,
    }


# ---------------------------------------------------------------------------- Pachyderm


def test_a_datum_is_a_top_folder_and_the_chart_reads_the_output_of_each() -> None:
    """`/**` would make a datum of each picture, and TensorFlow start anew for it."""
    source, rules = (part["pfs"] for part in read_spec("judge")["input"]["cross"])
    assert source == {"repo": "pictures", "branch": "master", "glob": "/*"}
    assert rules == {"repo": "rules", "branch": "master", "glob": "/"}
    chart = read_spec("chart")
    assert chart["input"] == {"pfs": {"repo": "judge", "branch": "master", "glob": "/"}}
    outputs = re.findall(r"--output '(.*?)'", "\n".join(chart["transform"]["stdin"]))
    assert outputs == ["/pfs/judge/*", "/pfs/judge/*"]
    assert read_spec("judge")["datum_set_spec"] == {"number": 1}


def test_rules_are_read_as_one_with_each_datum_on_flink_too() -> None:
    _, rules = (part["pfs"] for part in read_spec("judge-on-flink")["input"]["cross"])
    assert rules == {"repo": "rules", "branch": "master", "glob": "/"}


@pytest.mark.parametrize("name", ["judge", "judge-on-flink"])
def test_a_pipeline_is_given_what_its_code_reads(name: str) -> None:
    """Variables of the spec, of its secrets, of Pachyderm, and of the code itself."""
    spec = read_spec(name)
    transform = spec["transform"]
    code = "\n".join(transform["stdin"])
    read = set(re.findall(r"\$\{?([A-Za-z_0-9]+)", code))
    made = set(re.findall(r"^\s*([a-z]+)=", code, re.M))
    inputs = [part["pfs"] for part in spec["input"]["cross"]]
    set_by_pachyderm = {source.get("name", source["repo"]) for source in inputs}
    set_by_pachyderm |= {"PACH_JOB_ID"} | ({"S3_ENDPOINT"} if inputs[0].get("s3") else set())
    given = set(transform["env"]) | {secret["env_var"] for secret in transform["secrets"]}
    assert read - made - set_by_pachyderm <= given
    assert transform["env"]["MODEL_CACHE"] == "/tmp/models"
    assert transform["env"]["MODEL"] == "efficientdet_d0_coco17_tpu-32"
    made_secrets = _secrets_of("pachyderm.md")
    assert made_secrets == {"beam-threats-alerts": {"ALERT_URL", "ALERT_TOKEN"}}
    for secret in transform["secrets"]:
        assert secret["key"] in made_secrets[secret["name"]]
        assert secret["env_var"] == secret["key"]
    tokens = {secret["env_var"] for secret in transform["secrets"]}
    assert tokens == ({"ALERT_URL"} if name == "judge-on-flink" else {"ALERT_URL", "ALERT_TOKEN"})
