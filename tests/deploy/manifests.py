"""The Kubernetes manifests as they would be applied, and the schemas that they have to fit."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

from tests.absent import give_up
from tests.flink.stream_job import flink_cluster

ROOT = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes"
OPERATOR_VERSION = "1.10.0"
_API = f"org.apache.flink:flink-kubernetes-operator-api:{OPERATOR_VERSION}"
# "v1" is the version of CustomResourceDefinition; what it defines is v1beta1.
_CRD = "META-INF/fabric8/flinkdeployments.flink.apache.org-v1.yml"

Manifest = dict[str, Any]


def render(name: str) -> list[Manifest]:
    """What `kubectl apply -k deploy/kubernetes/<name>` would apply."""
    return deepcopy(_rendered(name))


@cache
def _rendered(name: str) -> list[Manifest]:
    tools = {"kubectl": ("kubectl", "kustomize"), "kustomize": ("kustomize", "build")}
    command = next((words for tool, words in tools.items() if shutil.which(tool)), None)
    if command is None:
        give_up("no kubectl and no kustomize here; either is one program to download")
    answer = subprocess.run(
        [*command, str(ROOT / name)], capture_output=True, text=True, timeout=60, check=False
    )
    assert answer.returncode == 0, answer.stderr
    return list(yaml.safe_load_all(answer.stdout))


def one(manifests: list[Manifest], kind: str, name: str | None = None) -> Manifest:
    """The only manifest of a kind, or of a kind and name."""
    (found,) = (
        manifest
        for manifest in manifests
        if manifest["kind"] == kind and name in (None, manifest["metadata"]["name"])
    )
    return found


@dataclass(frozen=True)
class Pod:
    """A pod that a manifest describes.

    Attributes:
      owner: The manifest's kind, and the part for which the pod is.
      template: Its metadata and spec.
    """

    owner: str
    template: Manifest

    @property
    def spec(self) -> Manifest:
        """The pod's spec."""
        found: Manifest = self.template["spec"]
        return found

    @property
    def containers(self) -> list[Manifest]:
        """All its containers, those that run first included."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    def container(self, name: str) -> Manifest:
        """A container by its name."""
        (found,) = (container for container in self.containers if container["name"] == name)
        return found

    def mounted(self, container: str, volume: str) -> str:
        """Where a container finds a volume."""
        (path,) = (
            mount["mountPath"]
            for mount in self.container(container)["volumeMounts"]
            if mount["name"] == volume
        )
        return str(path)


def pods(manifests: list[Manifest]) -> Iterator[Pod]:
    """Every pod that the manifests describe."""
    for manifest in manifests:
        kind, spec = manifest["kind"], manifest.get("spec", {})
        if kind == "CronJob":
            yield Pod(kind, spec["jobTemplate"]["spec"]["template"])
        elif kind in ("Job", "Deployment"):
            yield Pod(kind, spec["template"])
        elif kind == "FlinkDeployment":
            for part in ("jobManager", "taskManager"):
                yield Pod(part, spec[part]["podTemplate"])


# ---------------------------------------------------------------------------- schemas


def check(manifest: Manifest, kubernetes: str) -> None:
    """Checks a manifest by the schema of its kind, in which unknown keys are errors.

    Args:
      manifest: An object of Kubernetes itself, or a FlinkDeployment.
      kubernetes: A version such as `1.31`.

    Raises:
      jsonschema.ValidationError: It does not fit.
    """
    if manifest["kind"] != "FlinkDeployment":
        kubernetes_validate.validate(manifest, kubernetes, strict=True)
        return
    jsonschema.Draft202012Validator(_flink_deployment_schema()).validate(manifest)
    for pod in pods([manifest]):
        kubernetes_validate.validate(pod.template, kubernetes, strict=True)


@cache
def _flink_deployment_schema() -> Manifest:
    with zipfile.ZipFile(_operator_api()) as jar:
        definition = yaml.load(jar.read(_CRD), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    names = definition["spec"]["names"]["kind"], definition["spec"]["group"]
    (version,) = definition["spec"]["versions"]
    schema: Manifest = version["schema"]["openAPIV3Schema"]
    # Every object has these, and no definition says so.
    schema["properties"] |= {
        "apiVersion": {"const": f"{names[1]}/{version['name']}"},
        "kind": {"const": names[0]},
        "metadata": {
            "properties": {key: {"type": "string"} for key in ("name", "namespace")}
            | {
                key: {"type": "object", "additionalProperties": {"type": "string"}}
                for key in ("labels", "annotations")
            }
        },
    }
    return _strict(schema)


def _strict(schema: Any) -> Any:
    """The same schema with unknown keys refused, and with Kubernetes' own words made plain."""
    if isinstance(schema, list):
        return [_strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: _strict(part) for key, part in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get(
        "x-kubernetes-preserve-unknown-fields"
    ):
        strict.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        strict["type"] = ["integer", "string"]
    return strict


def _operator_api() -> Path:
    """The operator's classes, which hold its resource definitions, from Maven Central."""
    folder = flink_cluster.default_cache().parent / "kubernetes"
    jar = folder / f"flink-kubernetes-operator-api-{OPERATOR_VERSION}.jar"
    if jar.exists():
        return jar
    maven = shutil.which("mvn")
    if maven is None:
        give_up("no mvn on the PATH, with which the operator's resource definitions are fetched")
    answer = subprocess.run(
        [
            *(maven, "-B", "-q", "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy"),
            *(f"-Dartifact={_API}", f"-DoutputDirectory={folder}"),
        ],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    if answer.returncode != 0:
        give_up(f"Maven can't fetch {_API}: {(answer.stdout + answer.stderr).strip()[:300]}")
    return jar
