"""Reads and writes whole objects in Amazon S3 and Google Cloud Storage, by their own clients.

Beam's filesystems make a client for every file that is opened, ask for an object's size before its
bytes, and write a small file in three requests, which keeps both processors of a small machine busy
(`make bench` compares). Here a process keeps its clients and their connections, and reading and
writing are one request each. They are set up by Beam's own options (`--s3_*`, `--project` and so
on) and by the environment, as Beam's are.

Whatever goes wrong is an `OSError`: `FileNotFoundError`, `PermissionError`, `ConnectionError`, or
another one, with a message for a person in which there is no secret. Requests that a store answers
with 429 or 5xx, or not at all, are tried again first, for a minute or two.
"""

from __future__ import annotations

import base64
import errno
import functools
import hashlib
import os
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import IO, Any

from apache_beam.io.filesystem import FileMetadata
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, S3Options

from transforms.records.text import one_line

EMULATOR_VARIABLE = "STORAGE_EMULATOR_HOST"
"""The variable with the address of an emulator; google-cloud-storage reads it too."""

_CHUNK = 1 << 20
_CONNECTIONS = 64
_BROKEN_ANSWERS = 3


class CannotSignError(PermissionError):
    """This machine's credentials can't sign links; the message says which can."""


class NoCredentialsHereError(PermissionError):
    """This machine has no keys for the store; the message says how to give it some."""


class ObjectMetadata(FileMetadata):
    """An object as a listing shows it.

    Attributes:
      tag: Changes if the object is written again, also within the same second.
    """

    def __init__(self, path: str, size_bytes: int, changed: float, tag: str) -> None:
        super().__init__(path, size_bytes, changed)
        self.tag = tag


Has = Callable[[str], bool]
"""Says of a name in a folder whether what is under it is meant."""


class ObjectStore(ABC):
    """Reads, writes and lists the objects of a store. Thread-safe."""

    @abstractmethod
    def read(self, uri: str, at_most: int = -1) -> bytes:
        """Returns an object's bytes unchanged, or the first `at_most` of them."""

    @abstractmethod
    def chunks(self, uri: str) -> Iterator[bytes]:
        """Yields an object's bytes in chunks."""

    @abstractmethod
    def write(self, uri: str, data: bytes, kind: str) -> None:
        """Writes an object of this MIME type, in one request."""

    @abstractmethod
    def write_if_new(self, uri: str, data: bytes, kind: str) -> bool:
        """Writes an object in one request, unless there is one; returns whether it was written."""

    @abstractmethod
    def copy_if_same(self, source: str, uri: str, data: bytes, kind: str) -> bool:
        """Copies an object within the store, if it has these bytes and the store can copy it.

        Returns:
          Whether the copy has these bytes; if not, there may be a copy with others.
        """

    @abstractmethod
    def write_file(self, uri: str, file: IO[bytes], kind: str) -> None:
        """Writes an object of any size from an open file."""

    @abstractmethod
    def delete(self, uri: str) -> None:
        """Deletes an object; a missing object is no error."""

    @abstractmethod
    def list(self, prefix: str, after: str | None = None) -> Iterator[FileMetadata]:
        """Yields the objects whose addresses have a prefix, in the order of their names.

        Args:
          prefix: The text that the addresses begin with.
          after: An address: only those that sort behind it, if the store can list so.
        """

    @abstractmethod
    def list_folder(self, prefix: str, after: str | None = None) -> Iterator[FileMetadata | str]:
        """Yields the objects whose addresses have a prefix and no further slash behind it, and once
        for all others the addresses up to that slash, in the order of all of these.

        Args:
          prefix: See :meth:`list`.
          after: See :meth:`list`.
        """

    @abstractmethod
    def check_writable(self, uri: str) -> None:
        """Checks that an object can be written, and leaves nothing behind."""

    @abstractmethod
    def link(self, uri: str, seconds: int) -> str:
        """Signs a link by which anyone can read an object for a time, at most a week."""


def object_store(uri: str, *, patient: bool = True) -> ObjectStore | None:
    """Returns the store of an address; None if Beam's filesystems read the address.

    Args:
      uri: An address on any of Beam's filesystems.
      patient: Whether failed requests are retried for a long time.
    """
    if uri.startswith("s3://"):
        return _s3_store(FileSystems.get_filesystem(uri)._options, patient)
    if uri.startswith("gs://"):
        return _gcs_store(FileSystems.get_filesystem(uri)._pipeline_options, patient)
    return None


# Stores are cached by the identity of their options: Beam would parse the options for each file,
# which costs a millisecond.
@functools.lru_cache(maxsize=8)
def _s3_store(options: PipelineOptions | None, patient: bool) -> S3Store:
    return S3Store(S3Settings.of(options), patient=patient)


@functools.lru_cache(maxsize=8)
def _gcs_store(options: PipelineOptions | None, patient: bool) -> GcsStore:
    return GcsStore(options, patient=patient)


def _split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.split("://", 1)[1].partition("/")
    return bucket, key


def _error(uri: str, status: int | None, message: str) -> OSError:
    """Makes the error for an answer of a store."""
    if status == 404:
        return store_error(errno.ENOENT, f"{uri}: not there ({message})")
    if status in (401, 403):
        return store_error(errno.EACCES, f"{uri}: the store refuses access ({message})")
    return store_error(errno.EIO, f"{uri}: the store failed ({message})")


def store_error(number: int, message: str) -> OSError:
    """Makes an OSError of the class of an errno, whose text is the message alone.

    Args:
      number: The errno.
      message: The file, and what is wrong with it, in one line.
    """
    error = type(OSError(number, ""))(message)
    error.errno = number
    return error


@dataclass(frozen=True)
class S3Settings:
    """The values of Beam's S3 options; None for those that boto3 finds in the environment."""

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
        s3_options = options.view_as(S3Options)
        return cls(
            endpoint_url=s3_options.s3_endpoint_url,
            region_name=s3_options.s3_region_name,
            access_key_id=s3_options.s3_access_key_id,
            secret_access_key=s3_options.s3_secret_access_key,
            session_token=s3_options.s3_session_token,
            api_version=s3_options.s3_api_version,
            verify=s3_options.s3_verify,
            use_ssl=not s3_options.s3_disable_ssl,
        )


class _SettingsError(Exception):
    """There can be no client with the settings; the message says why, without a secret."""


@functools.cache
def _s3_client(settings: S3Settings, patient: bool, signature: str | None = None) -> Any:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import (
        BotoCoreError,
        CredentialRetrievalError,
        NoCredentialsError,
        PartialCredentialsError,
    )

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
    try:
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
    except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError):
        raise
    except BotoCoreError as error:
        raise _SettingsError(one_line(error)) from None
    except ValueError:  # Its message repeats the address, and with it a password.
        raise _SettingsError("the address of the endpoint is malformed") from None


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
    except _SettingsError as error:
        raise store_error(
            errno.EINVAL,
            f"{uri}: S3 can't be used with these settings ({error}); check the --s3_* options, the "
            "AWS_* variables and ~/.aws/config",
        ) from None
    except BotoCoreError as error:
        raise ConnectionError(f"{uri}: no answer from S3 ({type(error).__name__})") from None


class S3Store(ObjectStore):
    """Amazon S3 and what speaks its protocol.

    Args:
      settings: How it is reached.
      patient: Whether failed requests are retried for a long time.
    """

    def __init__(self, settings: S3Settings, *, patient: bool = True) -> None:
        self._settings = settings
        self._patient = patient

    def read(self, uri: str, at_most: int = -1) -> bytes:
        from botocore.exceptions import HTTPClientError, IncompleteReadError

        with _s3_errors(uri):
            for more_tries in reversed(range(_BROKEN_ANSWERS)):
                try:
                    with closing(self._open(uri)["Body"]) as body:
                        return bytes(body.read(None if at_most < 0 else at_most))
                except (HTTPClientError, IncompleteReadError):
                    # boto3 tries requests again, but not an answer that breaks off.
                    if not more_tries:
                        raise
        raise AssertionError("the last try returns or raises")

    def chunks(self, uri: str) -> Iterator[bytes]:
        from botocore.exceptions import HTTPClientError, IncompleteReadError

        reached = 0
        resume: dict[str, str] = {}
        with _s3_errors(uri):
            for more_tries in reversed(range(_BROKEN_ANSWERS)):
                try:
                    answer = self._open(uri, **resume)
                    with closing(answer["Body"]) as body:
                        for chunk in body.iter_chunks(_CHUNK):
                            reached += len(chunk)
                            # What was written anew meanwhile is another object.
                            resume = {"Range": f"bytes={reached}-", "IfMatch": answer["ETag"]}
                            yield chunk
                    return
                except (HTTPClientError, IncompleteReadError):
                    if not more_tries:
                        raise

    def write(self, uri: str, data: bytes, kind: str) -> None:
        bucket, key = _split(uri)
        with _s3_errors(uri):
            self._client.put_object(Bucket=bucket, Key=key, Body=data, ContentType=kind)

    def write_if_new(self, uri: str, data: bytes, kind: str) -> bool:
        from botocore.exceptions import ClientError

        bucket, key = _split(uri)
        with _s3_errors(uri):
            try:
                self._client.put_object(
                    Bucket=bucket, Key=key, Body=data, ContentType=kind, IfNoneMatch="*"
                )
            except ClientError as error:
                status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
                # Amazon answers 409 while another request writes or deletes the object.
                if status in (409, 412):
                    return False
                if status == 501:  # The store knows no conditions.
                    self.write(uri, data, kind)
                    return True
                raise
        return True

    def copy_if_same(self, source: str, uri: str, data: bytes, kind: str) -> bool:
        from botocore.exceptions import ClientError

        (source_bucket, source_key), (bucket, key) = _split(source), _split(uri)
        # The tag of an object that was uploaded in one part is the MD5 of its bytes.
        tag = hashlib.md5(data, usedforsecurity=False).hexdigest()
        with _s3_errors(uri):
            try:
                answer = self._client.copy_object(
                    CopySource={"Bucket": source_bucket, "Key": source_key},
                    CopySourceIfMatch=f'"{tag}"',
                    Bucket=bucket,
                    Key=key,
                    ContentType=kind,
                    MetadataDirective="REPLACE",
                )
            except ClientError:
                return False
        return bool(answer.get("CopyObjectResult", {}).get("ETag", "").strip('"') == tag)

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

    def list(self, prefix: str, after: str | None = None) -> Iterator[FileMetadata]:
        for page in self._pages(prefix, after):
            yield from self._objects(prefix, page)

    def list_folder(self, prefix: str, after: str | None = None) -> Iterator[FileMetadata | str]:
        bucket, _ = _split(prefix)
        for page in self._pages(prefix, after, Delimiter="/"):
            folders = (f"s3://{bucket}/{one['Prefix']}" for one in page.get("CommonPrefixes", ()))
            yield from sorted([*self._objects(prefix, page), *folders], key=address_of)

    @staticmethod
    def _objects(prefix: str, page: dict[str, Any]) -> Iterator[ObjectMetadata]:
        bucket, _ = _split(prefix)
        for entry in page.get("Contents", ()):
            changed = entry["LastModified"].timestamp()
            uri = f"s3://{bucket}/{entry['Key']}"
            yield ObjectMetadata(uri, entry["Size"], changed, entry.get("ETag", ""))

    def check_writable(self, uri: str) -> None:
        bucket, key = _split(uri)
        with _s3_errors(uri):
            # An upload that is begun and given up needs the permission, and makes no object.
            upload = self._client.create_multipart_upload(Bucket=bucket, Key=key)
            self._client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload["UploadId"])

    def link(self, uri: str, seconds: int) -> str:
        bucket, key = _split(uri)
        with _s3_errors(uri):
            # Left alone, boto3 signs links as Amazon did before 2014, which many stores refuse.
            signer = _s3_client(self._settings, patient=True, signature="s3v4")
            signed: str = signer.generate_presigned_url(
                "get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=seconds
            )
        return signed

    @functools.cached_property
    def _client(self) -> Any:
        """Made at the first request, whose errors say what is wrong with the settings."""
        return _s3_client(self._settings, self._patient)

    def _open(self, uri: str, **which: str) -> Any:
        bucket, key = _split(uri)
        return self._client.get_object(Bucket=bucket, Key=key, **which)

    def _pages(self, prefix: str, after: str | None, **how: str) -> Iterator[dict[str, Any]]:
        """Pages of a listing, by the first version of the protocol where a store has no other.

        Pachyderm's gateway answers a request of the second version as if it were of the first: it
        gives no `KeyCount`, and takes no token for the next page.
        """
        bucket, key = _split(prefix)
        what = {"Bucket": bucket, "Prefix": key, **how}
        begin = "" if after is None else _split(after)[1]
        with _s3_errors(prefix):
            for page in self._client.get_paginator("list_objects_v2").paginate(
                **what, **({"StartAfter": begin} if begin else {})
            ):
                if "KeyCount" not in page:
                    yield from self._client.get_paginator("list_objects").paginate(
                        **what, **({"Marker": begin} if begin else {})
                    )
                    return
                yield page


_gcs_clients = threading.local()


@contextmanager
def _gcs_errors(uri: str) -> Iterator[None]:
    import requests
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError
    from google.resumable_media.common import DataCorruption
    from urllib3.exceptions import HTTPError

    try:
        yield
    except GoogleAPIError as error:
        # What ran into the deadline of its tries holds the last one's error.
        last = error.__cause__ if isinstance(error.__cause__, Exception) else error
        status = getattr(last, "code", None)
        message = f"HTTP status {int(status)}" if status else type(last).__name__
        if status is None and isinstance(last, requests.RequestException):
            raise ConnectionError(f"{uri}: no answer from the store ({message})") from None
        raise _error(uri, status, message) from None
    except GoogleAuthError as error:
        raise PermissionError(
            f"{uri}: the credentials for Google Cloud do not work ({type(error).__name__})"
        ) from None
    except DataCorruption:
        raise _error(uri, None, "its checksum does not match the received data") from None
    except (requests.RequestException, HTTPError) as error:
        raise ConnectionError(f"{uri}: no answer from the store ({type(error).__name__})") from None


class GcsStore(ObjectStore):
    """Google Cloud Storage.

    Args:
      options: Beam's, with the project and the account.
      patient: Whether failed requests are retried for a long time.
    """

    def __init__(self, options: PipelineOptions | None, *, patient: bool = True) -> None:
        from google.cloud.storage.retry import DEFAULT_RETRY

        self._options = PipelineOptions([]) if options is None else options
        google = self._options.view_as(GoogleCloudOptions)
        self._account = (google.project, google.no_auth, google.impersonate_service_account)
        self._request_options = {
            # What is written has the same bytes each time, so that writing may be tried again.
            "retry": DEFAULT_RETRY if patient else None,
            "timeout": 60 if patient else 10,
        }

    def read(self, uri: str, at_most: int = -1) -> bytes:
        from google.api_core.exceptions import RequestRangeNotSatisfiable

        end = None if at_most < 0 else max(0, at_most - 1)
        with _gcs_errors(uri):
            try:
                data = self._blob(uri).download_as_bytes(
                    end=end, raw_download=True, **self._request_options
                )
            except RequestRangeNotSatisfiable:  # It is empty.
                return b""
            return bytes(data[:at_most] if at_most >= 0 else data)

    def chunks(self, uri: str) -> Iterator[bytes]:
        with (
            _gcs_errors(uri),
            self._blob(uri).open(
                "rb", chunk_size=8 * _CHUNK, raw_download=True, **self._request_options
            ) as file,
        ):
            while chunk := file.read(_CHUNK):
                yield chunk

    def write(self, uri: str, data: bytes, kind: str) -> None:
        with _gcs_errors(uri):
            self._blob(uri).upload_from_string(data, content_type=kind, **self._request_options)

    def write_if_new(self, uri: str, data: bytes, kind: str) -> bool:
        from google.api_core.exceptions import PreconditionFailed

        with _gcs_errors(uri):
            try:
                self._blob(uri).upload_from_string(
                    data, content_type=kind, if_generation_match=0, **self._request_options
                )
            except PreconditionFailed:
                return False
        return True

    def copy_if_same(self, source: str, uri: str, data: bytes, kind: str) -> bool:
        from google.api_core.exceptions import GoogleAPICallError

        blob = self._blob(uri)
        blob.content_type = kind
        with _gcs_errors(uri):
            try:
                token, _, _ = blob.rewrite(self._blob(source), **self._request_options)
            except GoogleAPICallError:
                return False
        md5 = hashlib.md5(data, usedforsecurity=False).digest()
        # Between locations, a large object is copied in several requests.
        return token is None and blob.md5_hash == base64.b64encode(md5).decode()

    def write_file(self, uri: str, file: IO[bytes], kind: str) -> None:
        with _gcs_errors(uri):
            self._blob(uri).upload_from_file(
                file, rewind=True, content_type=kind, **self._request_options
            )

    def delete(self, uri: str) -> None:
        try:
            with _gcs_errors(uri):
                self._blob(uri).delete(**self._request_options)
        except FileNotFoundError:
            pass

    def list(self, prefix: str, after: str | None = None) -> Iterator[FileMetadata]:
        for page in self._pages(prefix, after):
            yield from self._objects(prefix, page, after)

    def list_folder(self, prefix: str, after: str | None = None) -> Iterator[FileMetadata | str]:
        bucket, _ = _split(prefix)
        for page in self._pages(prefix, after, delimiter="/"):
            folders = (f"gs://{bucket}/{folder}" for folder in page.prefixes)
            yield from sorted([*self._objects(prefix, page, after), *folders], key=address_of)

    @staticmethod
    def _objects(prefix: str, page: Any, after: str | None) -> Iterator[ObjectMetadata]:
        bucket, _ = _split(prefix)
        for blob in page:
            uri, changed = f"gs://{bucket}/{blob.name}", blob.updated.timestamp()
            if uri != after:  # GCS lists from this one on.
                yield ObjectMetadata(uri, blob.size or 0, changed, str(blob.generation))

    def _pages(self, prefix: str, after: str | None, **how: str) -> Iterator[Any]:
        bucket, name = _split(prefix)
        with _gcs_errors(prefix):
            yield from self._client.list_blobs(
                bucket,
                prefix=name,
                start_offset=None if after is None else _split(after)[1],
                fields="prefixes,items(name,size,updated,generation),nextPageToken",
                **how,
                **self._request_options,
            ).pages

    def check_writable(self, uri: str) -> None:
        bucket, _ = _split(uri)
        needed = ["storage.objects.create", "storage.objects.delete"]
        with _gcs_errors(uri):
            has = self._client.bucket(bucket).test_iam_permissions(needed, **self._request_options)
        if missing := sorted(set(needed) - set(has)):
            raise PermissionError(f"{uri}: the account lacks {' and '.join(missing)}")

    def link(self, uri: str, seconds: int) -> str:
        from google.auth.credentials import Signing

        with _gcs_errors(uri):
            if not isinstance(self._client._credentials, Signing):
                raise CannotSignError(
                    f"{uri}: the credentials for Google Cloud can't sign; those of a service "
                    "account's key file can, and those of --impersonate_service_account"
                )
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


def address_of(entry: FileMetadata | str) -> str:
    """Returns the address of an object or folder that a listing shows."""
    return entry if isinstance(entry, str) else str(entry.path)


def folder_of(pattern: str) -> str:
    """Returns the folder under which all lies that matches a glob of Beam's, with a slash behind
    it; of an address, the folder that it is in."""
    literal = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    return literal[: literal.rfind("/") + 1]


def name_in(folder: str, address: str) -> str:
    """Returns which name in a folder an address is, or lies under.

    Args:
      folder: The folder's address with the slash behind it.
      address: An address in the folder.
    """
    return address.removeprefix(folder).partition("/")[0]


def list_some(
    store: ObjectStore, prefix: str, has: Has | None, after: str | None = None
) -> Iterator[FileMetadata]:
    """Yields the objects under some of the names in a folder, as :meth:`ObjectStore.list` does.

    Args:
      store: Where they are.
      prefix: The folder with the slash behind it, and what the names in it begin with, if anything.
      has: Whether what is under a name is yielded; None: all is.
      after: See :meth:`ObjectStore.list`.
    """
    if has is None:
        yield from store.list(prefix, after)
        return
    folder = prefix[: prefix.rindex("/") + 1]
    # Stores differ in whether they show a folder from the middle on: so from just before it.
    begin = None if after is None else folder + name_in(folder, after)
    for entry in store.list_folder(prefix, begin):
        address = address_of(entry)
        is_after = after is None or address > after
        if not has(name_in(folder, address)):
            continue
        if not isinstance(entry, str):
            if is_after:
                yield entry
        elif is_after:
            yield from store.list(address)
        elif after is not None and after.startswith(address):
            yield from store.list(address, after)


def matching(store: ObjectStore, pattern: str, has: Has | None = None) -> Iterator[FileMetadata]:
    """Objects whose addresses match a glob of Beam's; one without wildcards is an address.

    Args:
      store: Where they are.
      pattern: The glob.
      has: Whether what is under a name in its folder is yielded; None: all is.
    """
    literal = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    if literal == pattern:
        if has is not None and not has(name_in(folder_of(pattern), pattern)):
            return
        for file in store.list(pattern):  # The shortest of the names that begin so comes first.
            if file.path == pattern:
                yield file
            return
        return
    translate = FileSystems.get_filesystem(pattern).translate_pattern
    matches = re.compile(translate(pattern)).match
    yield from (file for file in list_some(store, literal, has) if matches(file.path))
