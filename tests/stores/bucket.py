"""A bucket as its owner sees it: filled and looked at by the makers' own clients."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from tests.stores.servers import KEY_ID, SECRET, Server


def s3_client(server: Server) -> Any:
    """boto3's client for a store, with the keys that it takes."""
    return boto3.client(
        "s3",
        endpoint_url=server.url,
        region_name="us-east-1",
        aws_access_key_id=KEY_ID,
        aws_secret_access_key=SECRET,
        config=Config(
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


@dataclass(frozen=True)
class Bucket:
    """A bucket.

    Attributes:
      server: The store that it is in.
      name: Its name.
    """

    server: Server
    name: str

    @classmethod
    def make(cls, server: Server, test: str) -> Bucket:
        """A new one for a test."""
        name = f"{re.sub('[^a-z0-9]+', '-', test.lower())[:40].strip('-')}-{uuid.uuid4().hex[:8]}"
        bucket = cls(server, name)
        if server.scheme == "s3":
            s3_client(server).create_bucket(Bucket=name)
        else:
            bucket._gcs().create_bucket(name)
        return bucket

    def uri(self, key: str = "") -> str:
        """The address of a key; of the bucket without one."""
        return f"{self.server.scheme}://{self.name}" + (f"/{key}" if key else "")

    def put(self, key: str, data: bytes) -> None:
        """Keeps an object."""
        if self.server.scheme == "s3":
            s3_client(self.server).put_object(Bucket=self.name, Key=key, Body=data)
        else:
            self._gcs().bucket(self.name).blob(key).upload_from_string(data)

    def put_tree(self, folder: Path, under: str) -> None:
        """Keeps all files of a directory."""
        s3 = s3_client(self.server) if self.server.scheme == "s3" else None
        gcs = None if s3 else self._gcs().bucket(self.name)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                key = f"{under}/{path.relative_to(folder).as_posix()}"
                if s3:
                    s3.put_object(Bucket=self.name, Key=key, Body=path.read_bytes())
                else:
                    assert gcs is not None
                    gcs.blob(key).upload_from_string(path.read_bytes())

    def tree(self, under: str) -> dict[str, bytes]:
        """All objects beneath a key, by the rest of their keys."""
        found = {}
        if self.server.scheme == "s3":
            client = s3_client(self.server)
            for page in client.get_paginator("list_objects_v2").paginate(
                Bucket=self.name, Prefix=f"{under}/"
            ):
                for entry in page.get("Contents", ()):
                    body = client.get_object(Bucket=self.name, Key=entry["Key"])["Body"]
                    found[entry["Key"].removeprefix(f"{under}/")] = body.read()
        else:
            for blob in self._gcs().list_blobs(self.name, prefix=f"{under}/"):
                found[blob.name.removeprefix(f"{under}/")] = blob.download_as_bytes()
        return found

    def unfinished_uploads(self) -> list[Any]:
        """Uploads that were begun and neither ended nor given up (S3)."""
        if self.server.scheme != "s3":
            return []
        answer = s3_client(self.server).list_multipart_uploads(Bucket=self.name)
        uploads: list[Any] = answer.get("Uploads", [])
        return uploads

    def _gcs(self) -> storage.Client:
        return storage.Client(
            project="camera-tests",
            credentials=AnonymousCredentials(),
            client_options={"api_endpoint": self.server.url},
        )
