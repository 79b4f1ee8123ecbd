"""Model files: fetched from any source, cached on this machine, identified by their hash.

A model is a SavedModel's directory or a `.tflite` or `.onnx` file. `--model` names it by a local
path, an address on any of Beam's filesystems, a `.tar.gz` of one, or a name: those of the
TensorFlow 2 Detection Model Zoo, and of YOLOX's release in ONNX.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.resources
import os
import re
import shutil
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

import requests
from tqdm import tqdm

from transforms.models.onnx_files import OnnxFileError, read_onnx
from transforms.records.images import ModelInfo
from transforms.records.text import one_line
from transforms.storage import stores

ZOO_ADDRESS = "https://download.tensorflow.org/models/object_detection/tf2"
ZOO_ADDRESS_VARIABLE = "MODEL_ZOO_ADDRESS"
YOLOX_ADDRESS = "https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0"
YOLOX_ADDRESS_VARIABLE = "MODEL_YOLOX_ADDRESS"
CACHE_VARIABLE = "MODEL_CACHE"
DEFAULT_ZOO_MODEL = "efficientdet_d0_coco17_tpu-32"
MAX_FILES = 10_000
MAX_MODEL_BYTES = 2 << 30
"""The largest archive that is unpacked. TensorFlow itself reads no graph of 2 GiB."""
_CHUNK = 1 << 20
INSTALLED = "package:"
"""The prefix of a model in an installed package: `package:PACKAGE/PATH`. Machines may have it
at different paths."""

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
DIGESTS: Mapping[str, str] = {}
"""The pinned sha256 of downloads, by the name of the model. Neither the zoo nor YOLOX publishes
any, so that the digest of the first download is recorded and checked at each later use of the file
on this machine."""
ZOO = {name: release for release, names in _ZOO_RELEASES.items() for name in names.split()}
"""Models of the zoo, and the release that each is published under (`tf2_detection_zoo.md`)."""
YOLOX = tuple(f"yolox_{size}" for size in ("nano", "tiny", "s", "m", "l", "x", "darknet"))
"""Models of YOLOX's release in ONNX, as its `demo/ONNXRuntime/README.md` lists them."""
NAMED_MODELS = frozenset({*ZOO, *YOLOX})
"""The names by which the job downloads a model."""
_FORMS = "a SavedModel's directory, a .tflite or .onnx file, or a .tar.gz of one"


_UNENCODED = {"Accept-Encoding": "identity"}  # The archive must arrive as it is stored.


class ModelError(ValueError):
    """A model that can't be used: one line that says what, where and what to do."""


@dataclass(frozen=True)
class ModelFiles:
    """A model's files on this machine.

    Attributes:
      path: A SavedModel's directory or a `.tflite` or `.onnx` file.
      info: Its name and the hash of its files.
    """

    path: str
    info: ModelInfo


def cache_directory() -> Path:
    """Returns the folder of cached models: `MODEL_CACHE`, or a folder in the user's cache."""
    if directory := os.environ.get(CACHE_VARIABLE):
        return Path(directory)
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(caches) / "beam_pipeline" / "models"


def fetch_model(model: str, *, expected_version: str | None = None) -> ModelFiles:
    """Returns the files of a model, which is downloaded or unpacked if necessary.

    Args:
      model: A path, an address, a `.tar.gz`, or one of :data:`NAMED_MODELS`.
      expected_version: The version that another machine has fetched under this name.

    Raises:
      ModelError: There is no such model, or it has another version.
    """
    model = _resolve_installed(model)
    if expected_version:
        cached = cache_directory() / expected_version
        if cached.is_dir():
            return _checked_cache_entry(cached, model)
    if model in ZOO:
        files = _from_zoo(model)
    elif model in YOLOX:
        files = _from_yolox(model)
    elif not stores.is_local(model):
        files = _fetch_remote(model)
    elif os.path.isfile(model) and model.endswith((".tar.gz", ".tgz")):
        files = _cache_archive(Path(model), model)
    elif os.path.exists(model):
        files = _find_model(Path(model), model)
    else:
        raise ModelError(
            f"{model}: no such file or directory, nor the name of a model that can be downloaded; "
            f"give --model {_FORMS}, or a name such as {DEFAULT_ZOO_MODEL} or yolox_s"
        )
    if expected_version and files.info.version != expected_version:
        raise ModelError(
            f"{model}: its files have changed since the job was started (version "
            f"{files.info.version}, not {expected_version}); start the job again"
        )
    return files


def _resolve_installed(model: str) -> str:
    """Returns the path of a model in an installed package; other models are returned unchanged."""
    if not model.startswith(INSTALLED):
        return model
    package, _, path = model.removeprefix(INSTALLED).partition("/")
    return str(importlib.resources.files(package) / path)


def model_version(path: str) -> str:
    """Returns the first 12 hex digits of the hash of a model's files.

    The hash is the sha256 of the lines that `sha256sum` prints for the files, in the order of their
    paths relative to the model. Those of an `.onnx` file are itself and the files with its weights.

    Raises:
      ModelError: It is an `.onnx` file that can't be read.
    """
    root = Path(path)
    if root.is_dir():
        files = sorted(root.rglob("*"))
    else:
        files = [root, *(root.parent / name for name in _files_with_weights(root, path))]
    lines = []
    for file in files:
        if file.is_file():
            name = file.relative_to(root if root.is_dir() else root.parent).as_posix()
            lines.append(f"{_sha256(file)}  {name}\n")
    return hashlib.sha256("".join(sorted(lines, key=lambda line: line[66:])).encode()).hexdigest()[
        :12
    ]


def _files_with_weights(file: Path, source: str) -> tuple[str, ...]:
    """Returns the paths of the other files of an `.onnx` file, relative to its folder.

    Raises:
      ModelError: The file is damaged, or one of them is missing.
    """
    names = _named_in(file, source)
    for name in names:
        if not (file.parent / name).is_file():
            raise ModelError(
                f"{source}: its weights are in the file {name!r}, which is missing; put it beside "
                "the .onnx file"
            )
    return names


def _named_in(file: Path, source: str) -> tuple[str, ...]:
    """Returns the paths that an `.onnx` file gives for its weights; none for other files."""
    if file.suffix != ".onnx":
        return ()
    try:
        return read_onnx(str(file)).external
    except OnnxFileError as error:
        raise ModelError(f"{source}: {error}") from None


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while chunk := opened.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _find_model(path: Path, source: str) -> ModelFiles:
    """Finds the only model at or beneath a local path."""
    if path.is_file():
        candidates = [path] if path.suffix in (".tflite", ".onnx") else []
    elif (path / "saved_model.pb").is_file():
        candidates = [path]
    else:
        candidates = [candidate.parent for candidate in sorted(path.rglob("saved_model.pb"))]
        candidates = candidates or sorted([*path.rglob("*.tflite"), *path.rglob("*.onnx")])
    if not candidates:
        raise ModelError(
            f"{source}: no model in it (neither saved_model.pb nor a .tflite or .onnx file); give "
            f"--model {_FORMS}"
        )
    if len(candidates) > 1:
        names = ", ".join(candidate.relative_to(path).as_posix() for candidate in candidates[:3])
        raise ModelError(
            f"{source}: {len(candidates)} models in it ({names} ...); name one of them"
        )
    model_path = str(candidates[0].absolute())
    info = ModelInfo(_name_of(source, candidates[0]), model_version(model_path))
    return ModelFiles(model_path, info)


def _name_of(source: str, path: Path) -> str:
    """Returns a name for the model: the last part of its path that is not generic."""
    for part in (
        source.rstrip("/").rsplit("/", 1)[-1],
        path.name,
        *_parents(source, path),
    ):
        name = re.sub(r"(\.tar\.gz|\.tgz|\.tflite|\.onnx)$", "", part)
        if name not in ("", ".", "saved_model", "model", "detect", "detector"):
            return name
    return "model"


def _parents(source: str, path: Path) -> Iterator[str]:
    yield from reversed(source.rstrip("/").split("/")[:-1])
    yield from (parent.name for parent in path.absolute().parents)


def _cache_archive(archive: Path, source: str) -> ModelFiles:
    """Unpacks an archive into the cache, in a folder that is named for the model's version."""
    with _scratch() as scratch:
        try:
            with gzip.open(archive) as stream:
                with tarfile.open(
                    fileobj=cast(BinaryIO, _BoundedReader(stream)), mode="r:"
                ) as opened:
                    _unpack(opened, scratch)
                while stream.read(_CHUNK):
                    pass  # To the end, where the checksum is.
        except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error) as error:
            raise ModelError(
                f"{source}: not a .tar.gz that can be unpacked ({one_line(error)})"
            ) from None
        return _move_into_cache(scratch, source)


class _BoundedReader:
    """A decompressed stream that refuses large reads.

    `tarfile` reads a whole header into memory, whatever size it states.
    """

    def __init__(self, stream: gzip.GzipFile) -> None:
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _CHUNK:
            raise tarfile.ExtractError(f"a header in it has {size} bytes")
        return self._stream.read(size)


def _unpack(archive: tarfile.TarFile, folder: Path) -> None:
    """Writes the regular files of an archive beneath a folder.

    Links are refused, as a file could be written outside the folder through them; models have none.
    (A chain of links bypassed Python's own filter for archives: CVE-2025-4517.) No file is
    overwritten, so that no two members have the same path.

    Raises:
      tarfile.TarError: A member is no regular file or folder or would lie outside the folder, or
        the members are too many or too large.
      OSError: A file exists, or can't be written.
    """
    size = 0
    for number, member in enumerate(archive, 1):
        parts = PurePosixPath(member.name.lstrip("/")).parts
        if ".." in parts:
            raise tarfile.ExtractError(f"{member.name!r} in it would lie outside the model")
        if not (member.isreg() or member.isdir()):
            raise tarfile.ExtractError(f"{member.name!r} in it is neither a file nor a folder")
        size += member.size
        if number > MAX_FILES or size > MAX_MODEL_BYTES:
            raise tarfile.ExtractError(
                f"there are more than {MAX_FILES} files or {MAX_MODEL_BYTES >> 20} MiB in it"
            )
        target = folder.joinpath(*parts)
        if member.isdir():
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        content = cast(BinaryIO, archive.extractfile(member))
        with target.open("xb") as out:
            shutil.copyfileobj(content, out, _CHUNK)


def _fetch_remote(model: str) -> ModelFiles:
    """Copies a model from one of Beam's filesystems into the cache."""
    base = model.rstrip("/")
    try:
        if base.endswith((".tflite", ".onnx", ".tar.gz", ".tgz")):
            files = [base]
        else:
            files = [file.path for file in stores.list_beneath(base)]
        with _scratch() as scratch:
            for file in files:
                name = file[len(base) + 1 :] or base.rsplit("/", 1)[-1]
                target = (scratch / name).resolve()
                if scratch.resolve() not in target.parents:
                    raise ModelError(f"{model}: {file!r} would lie outside the model")
                stores.copy(file, str(target))
            if base.endswith(".onnx"):
                folder, _, name = base.rpartition("/")
                for other in _named_in(scratch / name, model):
                    stores.copy(f"{folder}/{other}", str(scratch / other))
            if len(files) == 1 and base.endswith((".tar.gz", ".tgz")):
                return _cache_archive(scratch / base.rsplit("/", 1)[-1], model)
            return _move_into_cache(scratch, model)
    except OSError as error:
        raise ModelError(
            f"{model}: can't be read ({one_line(error)}); is the address right, and are there "
            "credentials for it?"
        ) from None


def _move_into_cache(scratch: Path, source: str) -> ModelFiles:
    version = _find_model(scratch, source).info.version
    cached = cache_directory() / version
    if not cached.is_dir():
        try:
            scratch.rename(cached)
        except OSError:  # Another process was first.
            if not cached.is_dir():
                raise
    return _checked_cache_entry(cached, source)


def _checked_cache_entry(path: Path, source: str) -> ModelFiles:
    """Returns a cached model, if it has the version that its folder is named for."""
    files = _find_model(path, source)
    if files.info.version != path.name:
        raise ModelError(
            f"{path}: its files are not those that were kept there; delete it to fetch the model "
            "again"
        )
    return files


def _make_directory(folder: Path) -> Path:
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
    """A temporary folder in the cache, which is deleted at the end unless it was renamed."""

    def __enter__(self) -> Path:
        cache = _make_directory(cache_directory())
        self._path = Path(tempfile.mkdtemp(dir=cache, prefix=".fetching-"))
        return self._path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._path, ignore_errors=True)


def _from_zoo(name: str) -> ModelFiles:
    address = os.environ.get(ZOO_ADDRESS_VARIABLE, ZOO_ADDRESS).rstrip("/")
    return _downloaded(name, f"{address}/{ZOO[name]}/{name}.tar.gz", "zoo", _cache_archive)


def _from_yolox(name: str) -> ModelFiles:
    address = os.environ.get(YOLOX_ADDRESS_VARIABLE, YOLOX_ADDRESS).rstrip("/")
    return _downloaded(name, f"{address}/{name}.onnx", "yolox", _find_model)


def _downloaded(
    name: str, url: str, folder_name: str, find: Callable[[Path, str], ModelFiles]
) -> ModelFiles:
    """Returns a named model, whose file is downloaded once and verified at each use.

    A download stays only if a model is found in it: the page of a proxy, for example, does not.
    """
    folder = _make_directory(cache_directory() / folder_name)
    file = folder / url.rsplit("/", 1)[-1]
    digest_file = file.with_name(f"{file.name}.sha256")
    pinned = DIGESTS.get(name)
    if file.is_file() and digest_file.is_file():
        if [_sha256(file)] != digest_file.read_text().split()[:1]:
            raise ModelError(
                f"{file}: is not what was downloaded (its sha256 is not the one in "
                f"{digest_file.name}); delete both files to download the model again"
            )
        return find(file, name)
    _download(url, file)
    try:
        digest = _sha256(file)
        if pinned not in (None, digest):
            raise ModelError(
                f"{url}: its sha256 is {digest}, and should be {pinned}; it was changed in transit "
                "or at its source: do not use it"
            )
        _named_in(file, url)  # First, as it names the address of a damaged .onnx file.
        find(file, url)
    except ModelError:
        file.unlink()
        raise
    stores.write_bytes(str(digest_file), f"{digest}  {file.name}\n".encode())
    trust = "as pinned in this release" if pinned else "recorded now, as none is published"
    print(f"{name}: downloaded; its sha256 is {digest}, {trust}", file=sys.stderr)
    return find(file, name)


def _download(url: str, target: Path) -> None:
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with (
            requests.get(url, stream=True, timeout=(10, 60), headers=_UNENCODED) as response,
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
                raise OSError(f"{out.tell()} of {total} bytes arrived")
        partial.replace(target)
    except (requests.RequestException, OSError) as error:
        raise ModelError(
            f"{url}: can't be downloaded ({one_line(error)}); give --model the path of {_FORMS}"
        ) from None
    finally:
        partial.unlink(missing_ok=True)
