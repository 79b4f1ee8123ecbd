"""What stands in for Google Cloud on the loopback: buckets, credentials, and the Dataflow service.

The buckets are an emulator's. The credentials are a user's, made up here, with a token that is
good for ever, so that nothing looks for a metadata server or asks for another. The Dataflow service
takes a job and says at once how it ended.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from apache_beam.internal.gcp import auth
from apache_beam.portability.api import beam_runner_api_pb2
from gcp_storage_emulator.server import create_server
from google.cloud import storage


class Buckets:
    """One bucket of an emulator.

    Args:
      client: Reads and writes it.
      name: Its name.
    """

    def __init__(self, client: storage.Client, name: str) -> None:
        self.name = name
        self._bucket = client.bucket(name)

    def uri(self, path: str) -> str:
        """An address in the bucket."""
        return f"gs://{self.name}/{path}"

    def write(self, path: str, data: bytes) -> None:
        """Keeps an object."""
        self._bucket.blob(path).upload_from_string(data)

    def read(self, uri: str) -> bytes:
        """An object's bytes."""
        data: bytes = self._bucket.blob(uri.removeprefix(self.uri(""))).download_as_bytes()
        return data

    def names(self, prefix: str) -> list[str]:
        """The objects under a prefix."""
        return [blob.name for blob in self._bucket.list_blobs(prefix=prefix)]


@contextmanager
def buckets(name: str) -> Iterator[tuple[str, Buckets]]:
    """An emulator's address (`STORAGE_EMULATOR_HOST`) and its one bucket."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with create_server("127.0.0.1", port, in_memory=True, default_bucket=name):
        address = f"http://127.0.0.1:{port}"
        client = storage.Client.create_anonymous_client()
        client._connection.API_BASE_URL = address
        yield address, Buckets(client, name)


def forget_credentials(patch: pytest.MonkeyPatch) -> None:
    """Lets Beam look for credentials anew: a process keeps those that it finds first."""
    patch.setattr(auth._Credentials, "_credentials_init", False)
    patch.setattr(auth._Credentials, "_credentials", None)


def credentials(file: Path) -> Path:
    """Writes what `GOOGLE_APPLICATION_CREDENTIALS` may name."""
    secrets = {"token": "a-token", "refresh_token": "none", "client_secret": "none"}
    user = {"type": "authorized_user", "client_id": "none", "expiry": "2999-01-01T00:00:00Z"}
    file.write_text(json.dumps({**user, **secrets}))
    return file


class DataflowService:
    """The Dataflow service (`--dataflow_endpoint`).

    Attributes:
      url: Its address.
      state: How every job ends, like `JOB_STATE_DONE`.
      refuses: Whether it takes no job.
      jobs: The jobs that were sent, oldest first.
    """

    def __init__(self) -> None:
        self.state = "JOB_STATE_DONE"
        self.refuses = False
        self.jobs: list[dict[str, Any]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self, body: dict[str, Any], status: int = 200) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if service.refuses or self.headers["Authorization"] != "Bearer a-token":
                    why = "Dataflow API has not been used in project cameras-test before"
                    self._answer({"error": {"code": 403, "message": why}}, 403)
                    return
                service.jobs.append(json.loads(body))
                self._answer(service._job())

            def do_GET(self) -> None:
                of_a_job = self.path.split("?")[0].endswith(service._job()["id"])
                self._answer(service._job() if of_a_job else {})

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://localhost:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _job(self) -> dict[str, Any]:
        return {"id": "2026-01-31_00_00_00-1", "name": "threats", "currentState": self.state}

    def close(self) -> None:
        """Ends it."""
        self._server.shutdown()
        self._server.server_close()


class Staged:
    """What a job or template holds.

    Args:
      job: Its JSON.
      bucket: Where its pipeline is staged.
    """

    def __init__(self, job: dict[str, Any], bucket: Buckets) -> None:
        self.type: str = job["type"]
        self.experiments: set[str] = set(job["environment"]["experiments"])
        (pool,) = job["environment"]["workerPools"]
        self.images = {image["containerImage"] for image in pool["sdkHarnessContainerImages"]}
        self.packages = [package["name"] for package in pool.get("packages", [])]
        options = job["environment"]["sdkPipelineOptions"]["options"]
        self.pipeline = beam_runner_api_pb2.Pipeline.FromString(bucket.read(options["pipelineUrl"]))

    def hints(self) -> dict[str, dict[str, str]]:
        """The resource hints of each step that has some; of its innermost steps, by name."""
        parts = self.pipeline.components
        return {
            transform.unique_name: {urn: value.decode() for urn, value in hints.items()}
            for transform in parts.transforms.values()
            if not transform.subtransforms
            and (hints := parts.environments[transform.environment_id].resource_hints)
        }

    def steps(self) -> set[str]:
        """The names of the outermost steps."""
        parts = self.pipeline.components.transforms
        (root,) = self.pipeline.root_transform_ids
        return {parts[name].unique_name for name in parts[root].subtransforms}

    def environment_images(self) -> set[str]:
        """The images of all environments in which the pipeline's steps run."""
        return {
            beam_runner_api_pb2.DockerPayload.FromString(environment.payload).container_image
            for environment in self.pipeline.components.environments.values()
        }
