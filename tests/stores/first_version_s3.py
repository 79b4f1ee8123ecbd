"""An S3 server on the loopback that lists by ListObjects in its first version, as Pachyderm's."""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

REGION, KEY, SECRET = "us-east-1", "any", "any"


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        bucket, _, key = unquote(address.path.lstrip("/")).partition("/")
        if not self.server.store._is_signed(self):
            self._refuse(403, "SignatureDoesNotMatch")
        elif bucket not in self.server.store.objects:
            self._refuse(404, "NoSuchBucket")
        elif key:
            self._object(self.server.store.objects[bucket].get(key))
        else:
            query = parse_qs(address.query, keep_blank_values=True)
            self._listing(bucket, {name: values[0] for name, values in query.items()})

    do_HEAD = do_GET

    def _not_implemented(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._refuse(501, "NotImplemented")

    do_PUT = do_POST = do_DELETE = _not_implemented

    def _listing(self, bucket: str, query: dict[str, str]) -> None:
        self.server.store.listed.append(query)
        self._send(200, self.server.store._listing(bucket, query).encode())

    def _object(self, data: bytes | None) -> None:
        if data is None:
            self._refuse(404, "NoSuchKey")
            return
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        extent = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        etag = {"ETag": f'"{hashlib.md5(data).hexdigest()}"'}
        self._send(206 if asked else 200, data[start:], etag | (extent if asked else {}))

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, f"<Error><Code>{code}</Code></Error>".encode())

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Last-Modified", "Sat, 31 Jan 2026 18:00:00 GMT")
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, store: FirstVersionS3) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.store = store


class FirstVersionS3:
    """The server: objects can be listed and read, all else is refused.

    A listing passes over parameters that it does not know, those of ListObjectsV2 among them. Each
    request must be signed.

    Attributes:
      objects: What each bucket holds, by key.
      page: The most keys in an answer.
      listed: The query of each listing that was asked for.
      heeds_marker: Without it each answer begins anew.
    """

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, bytes]] = {}
        self.page = 1000
        self.listed: list[dict[str, str]] = []
        self.heeds_marker = True
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> FirstVersionS3:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def options(self) -> list[str]:
        """Beam's options with which a job finds the server."""
        return [
            *("--s3_endpoint_url", self.url, "--s3_region_name", REGION),
            *("--s3_access_key_id", KEY, "--s3_secret_access_key", SECRET),
        ]

    def _listing(self, bucket: str, query: dict[str, str]) -> str:
        after = query.get("marker", "")
        keys = sorted(
            key
            for key in self.objects[bucket]
            if key.startswith(query.get("prefix", "")) and (key > after or not self.heeds_marker)
        )
        page = keys[: min(self.page, int(query.get("max-keys", 1000)))]
        more = len(page) < len(keys)
        next_ = f"<NextMarker>{escape(page[-1])}</NextMarker>" if more else ""
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-31T18:00:00Z</LastModified>"
            f"<ETag></ETag><Size>{len(self.objects[bucket][key])}</Size></Contents>"
            for key in page
        )
        return (
            f"<ListBucketResult><Name>{bucket}</Name><Marker>{escape(after)}</Marker><IsTruncated>{str(more).lower()}"
            f"</IsTruncated>{next_}{contents}</ListBucketResult>"
        )

    def _is_signed(self, handler: BaseHTTPRequestHandler) -> bool:
        """Whether the signature is that of the request as it came."""
        header = handler.headers.get("Authorization", "")
        if "SignedHeaders=" not in header:
            return False
        names = header.partition("SignedHeaders=")[2].partition(",")[0].split(";")
        request = AWSRequest(
            method=handler.command,
            url=f"{self.url}{handler.path}",
            headers={name: handler.headers[name] for name in names},
        )
        request.context["timestamp"] = handler.headers["X-Amz-Date"]
        signer = S3SigV4Auth(Credentials(KEY, SECRET), "s3", REGION)
        text = signer.string_to_sign(request, signer.canonical_request(request))
        return header.endswith(f"Signature={signer.signature(text, request)}")
