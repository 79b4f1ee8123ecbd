"""Model files: found anywhere, kept in a cache on this machine, known by their hash.

A model is a SavedModel's directory or a `.tflite` file. `--model` names it by a local path, an
address on any of Beam's filesystems, a `.tar.gz` of either, or a name from the TensorFlow 2
Detection Model Zoo.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import os
import re
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import requests
from tqdm import tqdm

from transforms import stores
from transforms.records import ModelInfo
from transforms.text import one_line

ZOO_ADDRESS = "http://download.tensorflow.org/models/object_detection/tf2"
ZOO_ADDRESS_VARIABLE = "MODEL_ZOO_ADDRESS"
CACHE_VARIABLE = "MODEL_CACHE"
DEFAULT_ZOO_MODEL = "ssd_mobilenet_v2_320x320_coco17_tpu-8"
INSTALLED = "package:"
"""Before a package and, after a slash, a path in it: a model that each machine has in its own
place, beside this program."""

_ZOO_RELEASES = {
    "20200711": """
        centernet_hg104_512x512_kpts_coco17_tpu-32 centernet_hg104_1024x1024_kpts_coco17_tpu-32
        centernet_resnet50_v1_fpn_512x512_coco17_tpu-8
        centernet_resnet50_v1_fpn_512x512_kpts_coco17_tpu-8
        centernet_resnet101_v1_fpn_512x512_coco17_tpu-8 centernet_resnet50_v2_512x512_coco17_tpu-8
        centernet_resnet50_v2_512x512_kpts_coco17_tpu-8
        efficientdet_d0_coco17_tpu-32 efficientdet_d1_coco17_tpu-32 efficientdet_d2_coco17_tpu-32
        efficientdet_d3_coco17_tpu-32 efficientdet_d4_coco17_tpu-32 efficientdet_d5_coco17_tpu-32
        efficientdet_d6_coco17_tpu-32 efficientdet_d7_coco17_tpu-32
        ssd_mobilenet_v2_320x320_coco17_tpu-8 ssd_mobilenet_v1_fpn_640x640_coco17_tpu-8
        ssd_mobilenet_v2_fpnlite_320x320_coco17_tpu-8
        ssd_mobilenet_v2_fpnlite_640x640_coco17_tpu-8
        ssd_resnet50_v1_fpn_640x640_coco17_tpu-8 ssd_resnet50_v1_fpn_1024x1024_coco17_tpu-8
        ssd_resnet101_v1_fpn_640x640_coco17_tpu-8 ssd_resnet101_v1_fpn_1024x1024_coco17_tpu-8
        ssd_resnet152_v1_fpn_640x640_coco17_tpu-8 ssd_resnet152_v1_fpn_1024x1024_coco17_tpu-8
        faster_rcnn_resnet50_v1_640x640_coco17_tpu-8 faster_rcnn_resnet50_v1_1024x1024_coco17_tpu-8
        faster_rcnn_resnet50_v1_800x1333_coco17_gpu-8 faster_rcnn_resnet101_v1_640x640_coco17_tpu-8
        faster_rcnn_resnet101_v1_1024x1024_coco17_tpu-8
        faster_rcnn_resnet101_v1_800x1333_coco17_gpu-8
        faster_rcnn_resnet152_v1_640x640_coco17_tpu-8
        faster_rcnn_resnet152_v1_1024x1024_coco17_tpu-8
        faster_rcnn_resnet152_v1_800x1333_coco17_gpu-8
        faster_rcnn_inception_resnet_v2_640x640_coco17_tpu-8
        faster_rcnn_inception_resnet_v2_1024x1024_coco17_tpu-8
        mask_rcnn_inception_resnet_v2_1024x1024_coco17_gpu-8
    """,
    "20200713": "centernet_hg104_512x512_coco17_tpu-8 centernet_hg104_1024x1024_coco17_tpu-32",
    "20210210": "centernet_mobilenetv2fpn_512x512_coco17_od "
    "centernet_mobilenetv2fpn_512x512_coco17_kpts",
}
ZOO = {name: release for release, names in _ZOO_RELEASES.items() for name in names.split()}
"""Models of the zoo, and the release under which each is published (its `tf2_detection_zoo.md`)."""


_AS_IT_IS = {"Accept-Encoding": "identity"}  # An archive that is unpacked on the way is not it.


class ModelError(ValueError):
    """A model that can't be used: one line that says what, where and what to do."""


@dataclass(frozen=True)
class ModelFiles:
    """A model's files on this machine.

    Attributes:
      path: A SavedModel's directory or a `.tflite` file.
      info: Its name and the hash of its files.
    """

    path: str
    info: ModelInfo


def cache_directory() -> Path:
    """Where models from elsewhere are kept: `MODEL_CACHE`, or a folder in the user's cache."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen)
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(caches) / "beam_pipeline" / "models"


def fetch_model(model: str, *, expected_version: str | None = None) -> ModelFiles:
    """The files of a model, brought to this machine where they are not on it.

    Args:
      model: A path, an address, a `.tar.gz`, or a name of the zoo.
      expected_version: The version that another machine has seen under this name.

    Raises:
      ModelError: There is no model, or it is not the expected one.
    """
    model = _installed(model)
    if expected_version:
        kept = cache_directory() / expected_version
        if kept.is_dir():
            return _kept(kept, model)
    if model in ZOO:
        files = _keep(_zoo_archive(model), model)
    elif not stores.is_local(model):
        files = _fetch_remote(model)
    elif os.path.isfile(model) and model.endswith((".tar.gz", ".tgz")):
        files = _keep(Path(model), model)
    elif os.path.exists(model):
        files = _model_in(Path(model), model)
    else:
        raise ModelError(
            f"{model}: no such file or directory, nor a model of the TensorFlow 2 Detection Zoo; "
            "give --model a SavedModel's directory, a .tflite file, a .tar.gz of either, or a "
            f"name such as {DEFAULT_ZOO_MODEL}"
        )
    if expected_version and files.info.version != expected_version:
        raise ModelError(
            f"{model}: its files have changed since the job was started (version "
            f"{files.info.version}, not {expected_version}); start the job again"
        )
    return files


def _installed(model: str) -> str:
    """Where a model of an installed package is on this machine; any other model as it is named."""
    if not model.startswith(INSTALLED):
        return model
    package, _, inside = model.removeprefix(INSTALLED).partition("/")
    return str(importlib.resources.files(package) / inside)


def model_version(path: str) -> str:
    """The first 12 hex digits of the hash of a model's files.

    That is the sha256 of the lines that `sha256sum` prints for them, in the order of their paths
    relative to the model.
    """
    root = Path(path)
    files = sorted(root.rglob("*")) if root.is_dir() else [root]
    lines = []
    for file in files:
        if file.is_file():
            name = file.relative_to(root if root.is_dir() else root.parent).as_posix()
            lines.append(f"{_sha256(file)}  {name}\n")
    return hashlib.sha256("".join(sorted(lines, key=lambda line: line[66:])).encode()).hexdigest()[
        :12
    ]


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while chunk := opened.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _model_in(place: Path, source: str) -> ModelFiles:
    """The one model at or beneath a local path."""
    if place.is_file():
        found = [place] if place.suffix == ".tflite" else []
    elif (place / "saved_model.pb").is_file():
        found = [place]
    else:
        found = [one.parent for one in sorted(place.rglob("saved_model.pb"))]
        found = found or sorted(place.rglob("*.tflite"))
    if not found:
        raise ModelError(
            f"{source}: no model in it (neither saved_model.pb nor a .tflite file); give --model "
            "a SavedModel's directory, a .tflite file, or a .tar.gz of either"
        )
    if len(found) > 1:
        names = ", ".join(one.relative_to(place).as_posix() for one in found[:3])
        raise ModelError(f"{source}: {len(found)} models in it ({names} ...); name one of them")
    path = str(found[0].absolute())
    return ModelFiles(path, ModelInfo(_name_of(source, found[0]), model_version(path)))


def _name_of(source: str, found: Path) -> str:
    """What a person calls the model: the first telling part of its path, from the end."""
    for part in (
        source.rstrip("/").rsplit("/", 1)[-1],
        found.name,
        *_parents(source, found),
    ):
        name = re.sub(r"(\.tar\.gz|\.tgz|\.tflite)$", "", part)
        if name not in ("", ".", "saved_model", "model", "detect", "detector"):
            return name
    return "model"


def _parents(source: str, found: Path) -> Iterator[str]:
    yield from reversed(source.rstrip("/").split("/")[:-1])
    yield from (parent.name for parent in found.absolute().parents)


def _keep(archive: Path, source: str) -> ModelFiles:
    """Unpacks an archive into the cache, under the version of the model in it."""
    with _scratch() as scratch:
        try:
            with tarfile.open(archive) as opened:
                opened.extractall(scratch, filter="data")
                while opened.fileobj and opened.fileobj.read(1 << 20):
                    pass  # To the end, where the checksum is.
        except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
            raise ModelError(
                f"{source}: not a .tar.gz that can be unpacked ({one_line(error)})"
            ) from None
        return _move_into_cache(scratch, source)


def _fetch_remote(model: str) -> ModelFiles:
    """Copies a model from one of Beam's filesystems into the cache."""
    base = model.rstrip("/")
    try:
        if base.endswith((".tflite", ".tar.gz", ".tgz")):
            files = [base]
        else:
            files = [one.path for one in stores.list_beneath(base)]
        with _scratch() as scratch:
            for file in files:
                name = file[len(base) + 1 :] or base.rsplit("/", 1)[-1]
                target = (scratch / name).resolve()
                if scratch.resolve() not in target.parents:
                    raise ModelError(f"{model}: {file!r} would lie outside the model")
                stores.copy(file, str(target))
            if len(files) == 1 and base.endswith((".tar.gz", ".tgz")):
                return _keep(scratch / base.rsplit("/", 1)[-1], model)
            return _move_into_cache(scratch, model)
    except ModelError:
        raise
    except Exception as error:  # Each store's client has its own kinds of error.
        raise ModelError(
            f"{model}: can't be read ({one_line(error)}); is the address right, and are there "
            "credentials for it?"
        ) from None


def _move_into_cache(scratch: Path, source: str) -> ModelFiles:
    version = _model_in(scratch, source).info.version
    kept = cache_directory() / version
    if not kept.is_dir():
        try:
            scratch.rename(kept)
        except OSError:  # Another process was first.
            if not kept.is_dir():
                raise
    return _kept(kept, source)


def _kept(place: Path, source: str) -> ModelFiles:
    """A model of the cache; its folder is named for its version."""
    files = _model_in(place, source)
    if files.info.version != place.name:
        raise ModelError(
            f"{place}: its files are not those that were kept there; delete it, to have the model "
            "brought again"
        )
    return files


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
        problem = "no permission"
    except OSError as error:
        problem = str(error)
    raise ModelError(
        f"{folder}: can't be written ({problem}); set {CACHE_VARIABLE} to a folder for models"
    )


class _scratch:
    """A folder in the cache that is gone in the end, unless it was renamed."""

    def __enter__(self) -> Path:
        cache = _made(cache_directory())
        self._path = Path(tempfile.mkdtemp(dir=cache, prefix=".fetching-"))
        return self._path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._path, ignore_errors=True)


def _zoo_archive(name: str) -> Path:
    """The zoo's archive of a model: downloaded once, its sha256 recorded and checked after."""
    folder = _made(cache_directory() / "zoo")
    archive, recorded = folder / f"{name}.tar.gz", folder / f"{name}.tar.gz.sha256"
    if not (archive.is_file() and recorded.is_file()):
        address = os.environ.get(ZOO_ADDRESS_VARIABLE, ZOO_ADDRESS).rstrip("/")
        _download(f"{address}/{ZOO[name]}/{name}.tar.gz", archive)
        stores.write_bytes(str(recorded), f"{_sha256(archive)}  {archive.name}\n".encode())
    elif [_sha256(archive)] != recorded.read_text().split()[:1]:
        raise ModelError(
            f"{archive}: is not what was downloaded (its sha256 is not the one in "
            f"{recorded.name}); delete both files to download the model again"
        )
    return archive


def _download(url: str, target: Path) -> None:
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with (
            requests.get(url, stream=True, timeout=(10, 60), headers=_AS_IT_IS) as response,
            partial.open("wb") as out,
        ):
            response.raise_for_status()
            total = int(response.headers.get("Content-Length", 0))
            with tqdm(
                desc=target.name,
                total=total or None,
                unit="B",
                unit_scale=True,
                leave=False,
            ) as bar:
                for chunk in response.iter_content(1 << 18):
                    out.write(chunk)
                    bar.update(len(chunk))
            if total and out.tell() != total:
                raise OSError(f"{out.tell()} of {total} bytes came")
        partial.replace(target)
    except (requests.RequestException, OSError) as error:
        raise ModelError(
            f"{url}: can't be downloaded ({one_line(error)}); give --model the path of a "
            "SavedModel's directory, a .tflite file, or a .tar.gz of either"
        ) from None
    finally:
        partial.unlink(missing_ok=True)
