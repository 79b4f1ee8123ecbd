"""Links that open without an account, for a while, and that no log or record has."""

from __future__ import annotations

import datetime
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
import requests
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

import rules
from tests.deploy.google_cloud import forget_credentials
from tests.stores.bucket import Bucket
from tests.stores.servers import SECRET, Server
from tests.transforms.pictures import jpeg
from tests.transforms.results import judged
from transforms.alerting import signed_links
from transforms.alerting.alerts import alert_for
from transforms.alerting.messages import compose
from transforms.alerting.signed_links import signed_link
from transforms.storage import stores

Use = Callable[[Server], None]
KEY = "a folder/+ü%20.jpg"


@pytest.fixture(autouse=True)
def nothing_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signed_links, "_logged", set())


@pytest.fixture
def s3_bucket(s3proxy_server: Server, tmp_path: Path, use: Use) -> Bucket:
    """A bucket in a store that checks signatures."""
    use(s3proxy_server)
    return Bucket.make(s3proxy_server, tmp_path.name)


def query(link: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(link).query).items()}


def test_a_link_to_s3_opens_that_object_without_an_account(s3_bucket: Bucket) -> None:
    s3_bucket.put(KEY, b"a picture")
    s3_bucket.put("other.jpg", b"another")
    link = signed_link(s3_bucket.uri(KEY), hours=2)
    assert link is not None
    assert requests.get(link, timeout=10).content == b"a picture"
    assert query(link)["X-Amz-Expires"] == "7200"
    for changed in (
        link.replace(quote(KEY), "other.jpg"),
        link.replace("X-Amz-Expires=7200", "X-Amz-Expires=7201"),
        link.split("?")[0],
    ):
        assert changed != link
        assert requests.get(changed, timeout=10).status_code in (403, 404)


def test_a_link_to_s3_closes(s3_bucket: Bucket) -> None:
    s3_bucket.put(KEY, b"a picture")
    link = signed_link(s3_bucket.uri(KEY), hours=1 / 3600)
    assert link is not None
    time.sleep(2.1)
    assert requests.get(link, timeout=10).status_code == 403


def test_no_link_is_open_for_longer_than_a_week(s3_bucket: Bucket) -> None:
    link = signed_link(s3_bucket.uri(KEY), hours=1000)
    assert link is not None
    assert query(link)["X-Amz-Expires"] == str(7 * 24 * 3600)


def test_messages_have_links_and_logs_and_records_have_none(
    s3_bucket: Bucket, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(1)
    image = judged(threats=[("person", "alert")])
    ruleset = rules.parse_rules(
        "version: 1\nmessage: {link_hours: 48}\ndefaults: {objects: {person: }}\n", "rules.yaml"
    )
    alert = alert_for(image, s3_bucket.uri("out"), ruleset)
    assert alert is not None
    data = jpeg()
    final = {**image.to_json(), "sha256": hashlib.sha256(data).hexdigest()}
    s3_bucket.put(f"out/validated/hall/{image.image.file}", data)
    s3_bucket.put(f"out/final/hall/{image.image.stem}.json", stores.json_bytes(final))
    message = compose(alert.body, ruleset)
    everywhere = (caplog.text, *capfd.readouterr(), json.dumps(message.body))
    assert requests.get(message.links["picture"], timeout=10).content == data
    assert requests.get(message.links["data"], timeout=10).json() == final
    assert f"Picture: {message.links['picture']}\n" in message.text
    assert f"This alert in the report: {message.links['report']}\n" in message.text
    assert message.links["report"].endswith("#hall_20260131T235959Z")
    s3_bucket.put("out/report/report.html", b"a page")
    assert requests.get(message.links["report"], timeout=10).content == b"a page"
    assert "The links open for 48 hours, for anyone who has them." in message.text
    for link in message.links.values():
        assert query(link.partition("#")[0])["X-Amz-Expires"] == "172800"
    signature = query(message.links["data"])["X-Amz-Signature"]
    assert "botocore" in {record.name.split(".")[0] for record in caplog.records}
    assert not [text for text in everywhere if signature in text or SECRET in text]


def test_without_keys_for_s3_there_is_no_link_and_the_log_says_so_once(
    use: Use, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    nowhere = {
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/nowhere",
        "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
    }
    # A region of its own: a client that was made with keys is kept for the same options.
    use(Server("", "s3", nowhere, ("--s3_region_name=eu-north-1",)))
    assert [signed_link(f"s3://camera-tests-bucket/{at}.jpg", 24) for at in range(3)] == [None] * 3
    messages = [
        message for message in caplog.messages if "messages have no links to s3://" in message
    ]
    assert len(messages) == 1
    assert "set AWS_ACCESS_KEY_ID" in messages[0]


# Google's.


def service_account(folder: Path) -> tuple[Path, Any]:
    """A key file as Google gives it, and the public key that goes with it."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file = folder / "key.json"
    file.write_text(
        json.dumps(
            {
                "type": "service_account",
                "project_id": "camera-tests",
                "private_key_id": "1",
                "private_key": pem.decode(),
                "client_email": "signer@camera-tests.iam.gserviceaccount.com",
                "token_uri": "http://127.0.0.1:9/token",
            }
        )
    )
    return file, key.public_key()


def is_signed(link: str, public_key: Any) -> bool:
    """Whether a link is signed as Google checks it.

    Source: https://cloud.google.com/storage/docs/authentication/canonical-requests
    """
    parts, given = urlsplit(link), query(link)
    signature = bytes.fromhex(given.pop("X-Goog-Signature"))
    canonical = "\n".join(
        (
            "GET",
            parts.path,
            "&".join(f"{name}={quote(value, safe='')}" for name, value in sorted(given.items())),
            f"host:{parts.netloc}",
            "",
            "host",
            "UNSIGNED-PAYLOAD",
        )
    )
    scope = given["X-Goog-Credential"].split("/", 1)[1]
    hashed = hashlib.sha256(canonical.encode()).hexdigest()
    signed = "\n".join(("GOOG4-RSA-SHA256", given["X-Goog-Date"], scope, hashed))
    try:
        public_key.verify(signature, signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    except Exception:
        return False
    return True


def test_a_link_to_gcs_is_signed_by_the_service_account_s_key(
    tmp_path: Path, use: Use, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(1)
    file, public_key = service_account(tmp_path)
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    forget_credentials(monkeypatch)
    use(
        Server("", "gs", {"GOOGLE_APPLICATION_CREDENTIALS": str(file)}, ("--project=camera-tests",))
    )
    link = signed_link(f"gs://camera-tests-bucket/{KEY}", hours=2)
    assert link is not None
    parts, given = urlsplit(link), query(link)
    assert (parts.scheme, parts.netloc) == ("https", "storage.googleapis.com")
    assert parts.path == f"/camera-tests-bucket/{quote(KEY)}"
    assert given["X-Goog-Expires"] == "7200"
    assert given["X-Goog-Credential"].startswith("signer@camera-tests.iam.gserviceaccount.com/")
    now = datetime.datetime.now(datetime.timezone.utc)
    signed_at = datetime.datetime.strptime(given["X-Goog-Date"], "%Y%m%dT%H%M%S%z")
    assert abs(now - signed_at) < datetime.timedelta(minutes=1)
    assert is_signed(link, public_key)
    assert not is_signed(link.replace("X-Goog-Expires=7200", "X-Goog-Expires=7201"), public_key)
    assert not is_signed(link.replace(".jpg", ".png"), public_key)
    assert given["X-Goog-Signature"] not in caplog.text


def test_without_a_key_for_gcs_there_is_no_link_and_the_log_says_so_once(
    gcs_server: Server, use: Use, caplog: pytest.LogCaptureFixture
) -> None:
    use(gcs_server)
    assert [signed_link(f"gs://camera-tests-bucket/{at}.jpg", 24) for at in range(3)] == [None] * 3
    messages = [
        message for message in caplog.messages if "messages have no links to gs://" in message
    ]
    assert len(messages) == 1
    assert "--impersonate_service_account" in messages[0]


@pytest.mark.parametrize("uri", ["/out/final/a.json", "out/a.json", "hdfs://a/b.json"])
def test_other_places_have_no_links(uri: str, caplog: pytest.LogCaptureFixture) -> None:
    assert signed_link(uri, 24) is None
    assert caplog.text == ""
