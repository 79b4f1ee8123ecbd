"""What an image costs in requests to a store, by method and folder, whatever else the job does.

A store takes money for each request: at a million cameras they cost more than the processors.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from beam_pipeline.bundled import BUNDLED_SAMPLES
from benchmarks.cost import requests_of
from tests.beam_pipeline.conftest import jpeg
from tests.beam_pipeline.played import RUNNER, Event, EventTime, Found, FoundTogether, PlayedRunner
from tests.conftest import Command
from tests.stores.bucket import Bucket
from tests.stores.servers import Proxy, Server

NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
SHOWS_A_PERSON = BUNDLED_SAMPLES / "hall" / "hall_20260131T180253Z.jpg"
IMAGES = 3
"""Of each camera: `valid` and `broken` send what their names say, `late` sends valid images."""

VALID = {"GET in": 1, "PUT validated": 1, "PUT detections": 1, "PUT final": 1}
# What a run says of an invalid image takes the place of a verdict that an earlier run has given.
INVALID = {"GET in": 1, "PUT invalid": 2, "GET final": 1, "GET detections": 1, "DELETE late": 1}


class Job:
    """The job with its input and output in a bucket, and the requests that it makes."""

    def __init__(
        self, bucket: Bucket, proxy: Proxy, command: Command, patch: pytest.MonkeyPatch
    ) -> None:
        self._bucket, self._proxy, self._command, self._patch = bucket, proxy, command, patch

    def put(self, camera: str, data: bytes, begin: datetime, number: int = IMAGES) -> list[Found]:
        """Images of a camera, one a second."""
        found = []
        for second in range(number):
            key = f"in/{camera}_{begin + timedelta(seconds=second):%Y%m%dT%H%M%SZ}.jpg"
            self._bucket.put(key, data)
            found.append(Found(self._bucket.uri(key), len(data)))
        return found

    @property
    def uploaded(self) -> int:
        """The number of bytes in the bodies of all requests."""
        return self._proxy.received

    def tree(self, under: str) -> dict[str, bytes]:
        return self._bucket.tree(under)

    def run(self, *script: Event, options: Sequence[str] = ()) -> list[tuple[str, str]]:
        """Method and key of the requests until the pipeline was done; a stream plays the script."""
        arguments = options
        if script:
            self._patch.setattr(PlayedRunner, "script", script)
            arguments = (*options, "--streaming", "--runner", RUNNER)
        self._proxy.requests.clear()
        done = self._command(
            *(*self._proxy.server.options, "--model", "bundled", *arguments),
            *("--input", self._bucket.uri("in"), "--output", self._bucket.uri("out")),
        )
        assert done.code == 0, done.err
        requests = []
        for method, path in self._proxy.requests:
            key = unquote(urlsplit(path).path).removeprefix(f"/{self._bucket.name}").strip("/")
            if (method, key) == ("PUT", "out/chart/threats.png"):
                return requests
            prefix = parse_qs(urlsplit(path).query).get("prefix", [""])[0]
            requests.append((method, key or f"listing of {prefix}"))
        raise AssertionError("no chart was written")


def of_each(requests: Sequence[tuple[str, str]]) -> dict[str, dict[str, float]]:
    """Requests for an image of each camera, on average, by method and top folder."""
    counted: dict[str, Counter[str]] = {}
    for method, key in requests:
        name = re.search(r"/([a-z]+)_[0-9TZ]+(-[0-9a-f]{8})?\.(jpg|json)(\.json)?$", key)
        if name:
            folder = key.removeprefix("out/").split("/")[0]
            counted.setdefault(name[1], Counter())[f"{method} {folder}"] += 1
    return {
        camera: {what: number / IMAGES for what, number in sorted(of.items())}
        for camera, of in sorted(counted.items())
    }


@pytest.fixture
def job(
    moto_bucket: Bucket,
    command: Command,
    use: Callable[[Server], None],
    proxy: Callable[[Server], Proxy],
    monkeypatch: pytest.MonkeyPatch,
) -> Job:
    before = proxy(moto_bucket.server)
    use(before.server)
    return Job(moto_bucket, before, command, monkeypatch)


def listings(requests: Sequence[tuple[str, str]]) -> Counter[str]:
    """How often each folder was listed: `invalid/` once for each step that looks for what earlier
    runs have recorded, whatever the number of images and bundles, and once more in the end."""
    return Counter(key.removeprefix("listing of ") for _, key in requests if "listing" in key)


def test_an_image_of_a_batch_costs_one_get_and_three_puts(job: Job) -> None:
    job.put("valid", jpeg(), NOON)
    job.put("broken", b"no JPEG", NOON)
    job.put("alerted", SHOWS_A_PERSON.read_bytes(), NOON, 1)
    every = job.run()
    requests = [(method, key) for method, key in every if "alerted" not in key]
    assert of_each(requests) == {"broken": INVALID, "valid": VALID}
    alerted = Counter(method for method, key in every if "alerted" in key)
    cost = requests_of(packed=False, copies=True, alert_share=1, images_a_file=math.inf)
    assert (alerted["GET"], alerted["PUT"]) == (cost.gets, cost.puts)
    assert listings(requests)["out/invalid/"] == 3


def test_shadow_rules_cost_one_request_for_an_image_with_an_alert_and_none_for_others(
    job: Job, tmp_path: Path
) -> None:
    shadow = tmp_path / "shadow.yaml"
    shadow.write_text("version: 1\ndefaults: {objects: {person: }}\n")
    stricter = tmp_path / "stricter.yaml"
    stricter.write_text("version: 1\ndefaults: {objects: {person: {min_score: 0.99}}}\n")
    job.put("valid", jpeg(), NOON)
    job.put("broken", b"no JPEG", NOON)
    job.put("alerted", SHOWS_A_PERSON.read_bytes(), NOON, 1)
    every = [job.run(), *(job.run(options=("--shadow_rules", f"{f}")) for f in (shadow, stricter))]
    (name,) = job.tree("out/shadow")
    own = [Counter(one for one in requests if "out/shadow" in one[1]) for requests in every]
    once = {("PUT", f"out/shadow/{name}"): 1, ("GET", "listing of out/shadow/alerts/"): 1}
    assert own == [{}, once, once]


def test_a_batch_uploads_no_image(job: Job) -> None:
    """The store copies what is in it already."""
    images = [jpeg() + os.urandom(200_000), b"no JPEG" + os.urandom(200_000)]
    for camera, data in zip(("valid", "broken"), images, strict=True):
        job.put(camera, data, NOON)
    before = job.uploaded
    job.run()
    assert job.uploaded - before < 200_000
    stored = job.tree("out")
    for number in range(IMAGES):
        assert stored[f"validated/valid/valid_20260131T12000{number}Z.jpg"] == images[0]
    broken = [name for name in stored if name.startswith("invalid/") and name.endswith(".jpg")]
    assert [stored[name] for name in broken] == [images[1]] * IMAGES


def test_an_image_of_a_stream_costs_the_same_unless_it_is_late_or_invalid(job: Job) -> None:
    late = job.put("late", jpeg(), NOON - timedelta(hours=5))
    on_time = job.put("valid", jpeg(), NOON) + job.put("broken", b"no JPEG", NOON)
    requests = job.run(EventTime(NOON.timestamp()), *on_time, *late)
    listed = listings(requests)
    assert listed.pop("out/invalid/") == 2
    # What is in `final/` of a late image's capture time: one for each form in which a name may
    # write it.
    assert sum(number for key, number in listed.items() if "out/final/late/" in key) == 5 * IMAGES
    assert not any("out/final/valid" in key for key in listed)
    kept = [key for method, key in requests if "/_known/" in key]
    assert kept == [f"out/late/_known/late/20260131T07000{second}Z.state" for second in range(3)]
    assert of_each(requests) == {
        # A stream can't know of another file of that name, nor carry bytes to where records are
        # kept: both are asked for.
        "broken": {**INVALID, "GET in": 2, "GET invalid": 2, "DELETE validated": 1},
        # Its window is forgotten: what is known of it is looked up, under each of eleven reasons.
        "late": {**VALID, "GET invalid": 22, "PUT late": 1},
        "valid": VALID,
    }


@pytest.mark.parametrize(
    ("options", "at_most"), [(("--no_store_validated",), 1.1), ((), 2.1)], ids=["none", "stored"]
)
def test_an_image_of_a_packed_batch_costs_one_request_and_one_for_its_copy(
    job: Job, options: Sequence[str], at_most: float
) -> None:
    """All requests of a run count, but for those that a run without images makes, too."""
    job.put("broken", b"no JPEG", NOON, 1)
    packed = ("--repository", "packed", *options)
    without = len(job.run(options=packed))
    number = 60
    job.put("valid", jpeg(), NOON, number)
    job.put("alerted", SHOWS_A_PERSON.read_bytes(), NOON, 1)
    every = job.run(options=packed)
    alerted = Counter(method for method, key in every if "alerted" in key)
    requests = [key for _, key in every if "alerted" not in key]
    assert len([key for key in requests if key.startswith("in/valid")]) == number
    assert 1 < (len(requests) - without) / number <= at_most
    stored = job.tree("out")
    assert len([key for key in stored if key.startswith("packed/")]) == 1
    written = {key.split("/")[1] for key in stored if key.startswith(("final/", "detections/"))}
    assert written == {"alerted"}
    # As docs/scale.md counts them.
    copies = not options
    cost = requests_of(packed=True, copies=copies, alert_share=1, images_a_file=math.inf)
    assert (alerted["GET"], alerted["PUT"]) == (cost.gets, int(cost.puts))


def test_an_image_of_a_packed_stream_costs_one_request(job: Job) -> None:
    """All requests of a run count, but for those that a run without images makes, too."""
    packed = ("--repository", "packed", "--no_store_validated")
    noon, number = EventTime(NOON.timestamp()), 60
    without = len(job.run(noon, options=packed))
    images = FoundTogether(tuple(job.put("valid", jpeg(), NOON, number)))
    requests = job.run(noon, images, options=packed)
    assert 1 < (len(requests) - without) / number <= 1.1
    (file,) = job.tree("out/packed")
    assert [key for method, key in requests if method == "PUT" and "packed" in key] == [
        f"out/packed/{file}"
    ]


def test_late_images_of_a_packed_stream_share_a_file_and_two_listings_of_a_day(
    job: Job,
) -> None:
    """Those of three cameras, in as many windows, are found at one look."""
    long_ago = NOON - timedelta(hours=5)
    late = tuple(
        found
        for number, camera in enumerate(("late", "later", "latest"))
        for found in job.put(camera, jpeg(), long_ago + timedelta(minutes=10 * number))
    )
    packed = ("--repository", "packed", "--no_store_validated")
    requests = job.run(EventTime(NOON.timestamp()), FoundTogether(late), options=packed)
    (file,) = job.tree("out/packed")
    assert file.startswith("20260131T070000Z_20260131T072500Z_")
    assert [method for method, key in requests if key == f"out/packed/{file}"] == ["PUT"]
    # At the start of the job; then to find the rows that there are, and once more to write others.
    listed = listings(requests)
    assert sum(number for key, number in listed.items() if key.startswith("out/packed/")) == 3
