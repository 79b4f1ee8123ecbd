"""Whole objects in Amazon S3 and Google Cloud Storage, by the clients of their makers.

Beam's filesystems make a client for every file that is opened, ask for an object's size before its
bytes, and write a small file in three requests, which leaves none of two processors for pictures
(`make bench` compares). Here a process keeps its clients and their connections, and reading and
writing are one request each. They are set up by Beam's own options (`--s3_*`, `--project` and so
on) and by the environment, as Beam's are.

Whatever goes wrong is an `OSError`: `FileNotFoundError`, `PermissionError`, `ConnectionError`, or
another one, with a message for a person in which there is no secret. Requests that a store answers
with 429 or 5xx, or not at all, are tried again first, for a minute or two.
"""

from __future__ import annotations

import functools
import os
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import IO, Any

from apache_beam.io.filesystem import FileMetadata
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, S3Options

EMULATOR_VARIABLE = "STORAGE_EMULATOR_HOST"
"""The address of a server that stands for Google's, as google-cloud-storage takes it."""

_CHUNK = 1 << 20
_CONNECTIONS = 64
_BROKEN_ANSWERS = 3


class CannotSignError(PermissionError):
    """This machine's credentials can't sign links; the message says which can."""


class NoCredentialsHereError(PermissionError):
    """This machine has no keys for the store; the message says how to give it some."""


class ObjectStore(ABC):
    """Reads, writes and lists the objects of a store, from any number of threads."""

    @abstractmethod
    def read(self, uri: str, at_most: int = -1) -> bytes:
        """An object's bytes as they are, or the first `at_most` of them."""

    @abstractmethod
    def chunks(self, uri: str) -> Iterator[bytes]:
        """An object's bytes, some at a time."""

    @abstractmethod
    def write(self, uri: str, data: bytes, kind: str) -> None:
        """Writes an object of this MIME type, in one request."""

    @abstractmethod
    def write_file(self, uri: str, file: IO[bytes], kind: str) -> None:
        """Writes an object of any size from an open file."""

    @abstractmethod
    def delete(self, uri: str) -> None:
        """Deletes an object; one that is not there is no error."""

    @abstractmethod
    def list(self, prefix: str) -> Iterator[FileMetadata]:
        """Objects whose addresses begin so, in the order of their names."""

    @abstractmethod
    def check_writable(self, uri: str) -> None:
        """Finds out whether an object could be written there, and leaves nothing behind."""

    @abstractmethod
    def link(self, uri: str, seconds: int) -> str:
        """An address by which anyone can read an object for so long, a week at most."""


def object_store(uri: str, *, patient: bool = True) -> ObjectStore | None:
    """The store of an address; None for one that Beam's filesystems are to read.

    Args:
      uri: An address on any of Beam's filesystems.
      patient: Whether requests that fail are tried again for long.
    """
    if uri.startswith("s3://"):
        return _s3_store(FileSystems.get_filesystem(uri)._options, patient)
    if uri.startswith("gs://"):
        return _gcs_store(FileSystems.get_filesystem(uri)._pipeline_options, patient)
    return None


# Stores are kept by the identity of their options, which Beam parses anew at each look: that would
# cost a millisecond a file.
@functools.lru_cache(maxsize=8)
def _s3_store(options: PipelineOptions | None, patient: bool) -> S3Store:
    return S3Store(S3Settings.of(options), patient=patient)


@functools.lru_cache(maxsize=8)
def _gcs_store(options: PipelineOptions | None, patient: bool) -> GcsStore:
    return GcsStore(options, patient=patient)


def _split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.split("://", 1)[1].partition("/")
    return bucket, key


def _error(uri: str, status: int | None, says: str) -> OSError:
    """The error for an answer of a store."""
    if status == 404:
        return FileNotFoundError(f"{uri}: not there ({says})")
    if status in (401, 403):
        return PermissionError(f"{uri}: the store refuses access ({says})")
    return OSError(f"{uri}: the store failed ({says})")


@dataclass(frozen=True)
class S3Settings:
    """What Beam's S3 options say; None: what boto3 finds in the environment."""

    endpoint_url: str | None = None
    region_name: str | None = None
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    api_version: str | None = None
    verify: str | bool | None = None
    use_ssl: bool = True

    @classmethod
    def of(cls, options: PipelineOptions | None) -> S3Settings:
        """The settings in a pipeline's options."""
        if options is None:
            return cls()
        given = options.view_as(S3Options)
        return cls(
            endpoint_url=given.s3_endpoint_url,
            region_name=given.s3_region_name,
            access_key_id=given.s3_access_key_id,
            secret_access_key=given.s3_secret_access_key,
            session_token=given.s3_session_token,
            api_version=given.s3_api_version,
            verify=given.s3_verify,
            use_ssl=not given.s3_disable_ssl,
        )


@functools.cache
def _s3_client(settings: S3Settings, patient: bool, signature: str | None = None) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(
        signature_version=signature,
        max_pool_connections=_CONNECTIONS,
        connect_timeout=10 if patient else 4,
        read_timeout=60 if patient else 10,
        retries={"mode": "standard", "total_max_attempts": 10 if patient else 2},
        # Stores that are not Amazon's know nothing of its newer checksums.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return boto3.session.Session().client(
        "s3",
        config=config,
        endpoint_url=settings.endpoint_url,
        region_name=settings.region_name,
        aws_access_key_id=settings.access_key_id,
        aws_secret_access_key=settings.secret_access_key,
        aws_session_token=settings.session_token,
        api_version=settings.api_version,
        verify=settings.verify,
        use_ssl=settings.use_ssl,
    )


@contextmanager
def _s3_errors(uri: str) -> Iterator[None]:
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        CredentialRetrievalError,
        NoCredentialsError,
        PartialCredentialsError,
    )

    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if code in ("NoSuchKey", "NoSuchBucket", "404"):
            status = 404
        raise _error(uri, status, f"{code}, HTTP status {status}") from None
    except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError):
        raise NoCredentialsHereError(
            f"{uri}: there are no credentials for S3; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or give the machine a role"
        ) from None
    except BotoCoreError as error:
        raise ConnectionError(f"{uri}: no answer from S3 ({type(error).__name__})") from None


class S3Store(ObjectStore):
    """Amazon S3 and what speaks its protocol.

    Args:
      settings: How it is reached.
      patient: Whether requests that fail are tried again for long.
    """

    def __init__(self, settings: S3Settings, *, patient: bool = True) -> None:
        self._settings = settings
        self._client = _s3_client(settings, patient)

    def read(self, uri: str, at_most: int = -1) -> bytes:
        from botocore.exceptions import HTTPClientError, IncompleteReadError

        with _s3_errors(uri):
            for more_tries in reversed(range(_BROKEN_ANSWERS)):
                try:
                    with closing(self._open(uri)) as body:
                        return bytes(body.read(None if at_most < 0 else at_most))
                except (HTTPClientError, IncompleteReadError):
                    # boto3 tries requests again, but not an answer that breaks off.
                    if not more_tries:
                        raise
        raise AssertionError("the last try returns or raises")

    def chunks(self, uri: str) -> Iterator[bytes]:
        with _s3_errors(uri), closing(self._open(uri)) as body:
            yield from body.iter_chunks(_CHUNK)

    def write(self, uri: str, data: bytes, kind: str) -> None:
        bucket, key = _split(uri)
        with _s3_errors(uri):
            self._client.put_object(Bucket=bucket, Key=key, Body=data, ContentType=kind)

    def write_file(self, uri: str, file: IO[bytes], kind: str) -> None:
        from boto3.exceptions import S3UploadFailedError

        bucket, key = _split(uri)
        with _s3_errors(uri):
            try:
                self._client.upload_fileobj(file, bucket, key, ExtraArgs={"ContentType": kind})
            except S3UploadFailedError as error:
                raise (error.__cause__ or error.__context__ or error) from None

    def delete(self, uri: str) -> None:
        bucket, key = _split(uri)
        with _s3_errors(uri):
            self._client.delete_object(Bucket=bucket, Key=key)

    def list(self, prefix: str) -> Iterator[FileMetadata]:
        bucket, key = _split(prefix)
        with _s3_errors(prefix):
            for page in self._pages(bucket, key):
                for one in page.get("Contents", ()):
                    changed = one["LastModified"].timestamp()
                    yield FileMetadata(f"s3://{bucket}/{one['Key']}", one["Size"], changed)

    def check_writable(self, uri: str) -> None:
        bucket, key = _split(uri)
        with _s3_errors(uri):
            # An upload that is begun and given up needs the permission, and makes no object.
            begun = self._client.create_multipart_upload(Bucket=bucket, Key=key)
            self._client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=begun["UploadId"])

    def link(self, uri: str, seconds: int) -> str:
        bucket, key = _split(uri)
        with _s3_errors(uri):
            # Left alone, boto3 signs links as Amazon did before 2014, which many stores refuse.
            signer = _s3_client(self._settings, patient=True, signature="s3v4")
            signed: str = signer.generate_presigned_url(
                "get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=seconds
            )
        return signed

    def _open(self, uri: str) -> Any:
        bucket, key = _split(uri)
        return self._client.get_object(Bucket=bucket, Key=key)["Body"]

    def _pages(self, bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
        """Pages of a listing, by the first version of the protocol where a store has no other.

        Pachyderm's gateway answers a request of the second version as if it were of the first: it
        gives no `KeyCount`, and takes no token for the next page.
        """
        for page in self._client.get_paginator("list_objects_v2").paginate(
            Bucket=bucket, Prefix=prefix
        ):
            if "KeyCount" not in page:
                yield from self._client.get_paginator("list_objects").paginate(
                    Bucket=bucket, Prefix=prefix
                )
                return
            yield page


_gcs_clients = threading.local()


@contextmanager
def _gcs_errors(uri: str) -> Iterator[None]:
    import requests
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except GoogleAPIError as error:
        # What ran into the deadline of its tries holds the last one's error.
        last = error.__cause__ if isinstance(error.__cause__, Exception) else error
        status = getattr(last, "code", None)
        says = f"HTTP status {int(status)}" if status else type(last).__name__
        if status is None and isinstance(last, requests.RequestException):
            raise ConnectionError(f"{uri}: no answer from the store ({says})") from None
        raise _error(uri, status, says) from None
    except GoogleAuthError as error:
        raise PermissionError(
            f"{uri}: the credentials for Google Cloud do not work ({type(error).__name__})"
        ) from None
    except requests.RequestException as error:
        raise ConnectionError(f"{uri}: no answer from the store ({type(error).__name__})") from None


class GcsStore(ObjectStore):
    """Google Cloud Storage.

    Args:
      options: Beam's, with the project and the account.
      patient: Whether requests that fail are tried again for long.
    """

    def __init__(self, options: PipelineOptions | None, *, patient: bool = True) -> None:
        from google.cloud.storage.retry import DEFAULT_RETRY

        self._options = PipelineOptions([]) if options is None else options
        google = self._options.view_as(GoogleCloudOptions)
        self._account = (google.project, google.no_auth, google.impersonate_service_account)
        self._how = {
            # What is written has the same bytes each time, so that writing may be tried again.
            "retry": DEFAULT_RETRY if patient else None,
            "timeout": 60 if patient else 10,
        }

    def read(self, uri: str, at_most: int = -1) -> bytes:
        from google.api_core.exceptions import RequestRangeNotSatisfiable

        end = None if at_most < 0 else max(0, at_most - 1)
        with _gcs_errors(uri):
            try:
                data = self._blob(uri).download_as_bytes(end=end, raw_download=True, **self._how)
            except RequestRangeNotSatisfiable:  # It is empty.
                return b""
            return bytes(data[:at_most] if at_most >= 0 else data)

    def chunks(self, uri: str) -> Iterator[bytes]:
        with (
            _gcs_errors(uri),
            self._blob(uri).open(
                "rb", chunk_size=8 * _CHUNK, raw_download=True, **self._how
            ) as file,
        ):
            while chunk := file.read(_CHUNK):
                yield chunk

    def write(self, uri: str, data: bytes, kind: str) -> None:
        with _gcs_errors(uri):
            self._blob(uri).upload_from_string(data, content_type=kind, **self._how)

    def write_file(self, uri: str, file: IO[bytes], kind: str) -> None:
        with _gcs_errors(uri):
            self._blob(uri).upload_from_file(file, rewind=True, content_type=kind, **self._how)

    def delete(self, uri: str) -> None:
        try:
            with _gcs_errors(uri):
                self._blob(uri).delete(**self._how)
        except FileNotFoundError:
            pass

    def list(self, prefix: str) -> Iterator[FileMetadata]:
        bucket, name = _split(prefix)
        with _gcs_errors(prefix):
            found = self._client.list_blobs(
                bucket,
                prefix=name,
                fields="items(name,size,updated),nextPageToken",
                **self._how,
            )
            for one in found:
                yield FileMetadata(
                    f"gs://{bucket}/{one.name}", one.size or 0, one.updated.timestamp()
                )

    def check_writable(self, uri: str) -> None:
        bucket, _ = _split(uri)
        needed = ["storage.objects.create", "storage.objects.delete"]
        with _gcs_errors(uri):
            has = self._client.bucket(bucket).test_iam_permissions(needed, **self._how)
        if missing := sorted(set(needed) - set(has)):
            raise PermissionError(f"{uri}: the account lacks {' and '.join(missing)}")

    def link(self, uri: str, seconds: int) -> str:
        from google.auth.credentials import Signing

        if not isinstance(self._client._credentials, Signing):
            raise CannotSignError(
                f"{uri}: the credentials for Google Cloud can't sign; those of a service account's "
                "key file can, and those of --impersonate_service_account"
            )
        with _gcs_errors(uri):
            signed: str = self._blob(uri).generate_signed_url(
                version="v4", expiration=timedelta(seconds=seconds), method="GET"
            )
        return signed

    @property
    def _client(self) -> Any:
        """The thread's own client: Google's says nothing of threads."""
        key = (os.environ.get(EMULATOR_VARIABLE), *self._account)
        clients: dict[Any, Any] = _gcs_clients.__dict__.setdefault("by_key", {})
        if key not in clients:
            clients[key] = self._make_client()
        return clients[key]

    def _make_client(self) -> Any:
        from apache_beam.io.gcp.gcsio import create_storage_client

        # To look for credentials takes minutes on a machine that has none.
        with_credentials = EMULATOR_VARIABLE not in os.environ
        return create_storage_client(self._options, use_credentials=with_credentials)

    def _blob(self, uri: str) -> Any:
        bucket, name = _split(uri)
        return self._client.bucket(bucket).blob(name)


def matching(store: ObjectStore, pattern: str) -> Iterator[FileMetadata]:
    """Objects whose addresses match a glob of Beam's; one without wildcards is an address."""
    literal = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    if literal == pattern:
        for one in store.list(pattern):  # The shortest of the names that begin so comes first.
            if one.path == pattern:
                yield one
            return
        return
    translate = FileSystems.get_filesystem(pattern).translate_pattern
    matches = re.compile(translate(pattern)).match
    yield from (one for one in store.list(literal) if matches(one.path))
