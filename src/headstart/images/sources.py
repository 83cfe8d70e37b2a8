"""What `data` may name, looked at without walking it: kind and existence of each source, dataset YAMLs read."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from headstart.errors import UserError, did_you_mean
from headstart.images import dataset_yaml, frames
from headstart.images.braces import is_pattern, named_by
from headstart.images.dataset_yaml import meant_dataset, read_dataset_yaml, shipped
from headstart.images.members import is_address, is_compressed_name, is_shard_name, split

SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".dng", ".heic", ".heif", ".jp2", ".mpo",
)  # fmt: skip
"""Those of images that Ultralytics trains on."""
PASSED_OVER = (
    ".gif", ".jfif", ".jpe", ".jxl", ".j2k", ".exr", ".hdr", ".pfm", ".pgm", ".ppm", ".pbm", ".pnm", ".pam", ".ras",
    ".tga", ".psd", ".svg", ".ico", ".arw", ".cr2", ".cr3", ".nef", ".orf", ".raf", ".rw2", ".dcm", ".nii", ".fits",
)  # fmt: skip
"""Those of images too, but neither Ultralytics nor headstart reads files that are called so."""
_HEAD = 2**16
_READ = ", ".join(suffix[1:] for suffix in (*SUFFIXES, *frames.SUFFIXES))
_EXPECTED = f"give a folder, a glob, a .txt list, a dataset .yaml, shards (tar, zip), or images and videos ({_READ})"

Data = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


@dataclass(frozen=True)
class Source:
    """One thing that the user named.

    Attributes:
        path: Absolute path or glob pattern, or an address.
        kind: How it is read.
        train: Of a dataset: what its `train` names.
        held_out: Of a dataset: what its `val` and `test` name, as far as it exists.
        channels: Of a dataset: those of its images.
        keypoints: Of a dataset of poses: its ``kpt_shape``.
        labels: Of a dataset: whether it is named for its labels (``labels=``), which are learnt from.
    """

    path: str
    kind: Literal["folder", "image", "video", "shard", "address", "list", "glob", "dataset"]
    train: tuple[Source, ...] = ()
    held_out: tuple[Source, ...] = ()
    channels: int | None = None
    keypoints: tuple[int, int] | None = None
    labels: bool = False


def check_sources(data: Data) -> list[UserError]:
    """Everything wrong with `data` that shows without walking a folder; an empty list if nothing is."""
    return parse_sources(data)[1]


def parse_sources(data: Data) -> tuple[list[Source], list[UserError]]:
    """The sources that `data` names, and the problems of those that cannot be read."""
    named: list[Any] = list(data) if isinstance(data, (list, tuple)) else [data]
    sources: list[Source] = []
    problems: list[UserError] = []
    if not named:
        problems.append(UserError("names nothing", where="data", hint=_EXPECTED))
    for name in named:
        found, wrong = _all_of(name)
        sources += found
        problems += wrong
    return sources, problems


def _all_of(name: Any) -> tuple[list[Source], list[UserError]]:
    """The sources that one name stands for, which may have braces; of what is wrong with many of them the first."""
    sources, problems = [], []
    try:
        names = [name] if not isinstance(name, (str, os.PathLike)) else named_by(os.fspath(name))
    except UserError as problem:
        return [], [problem]
    for one in names:
        try:
            sources.append(_source(one))
        except UserError as problem:
            problems.append(problem)
    if len(problems) > 1:
        first = problems[0]
        what = f"{len(problems):,} of the {len(names):,} that {name} names cannot be used: {first.what}, for one"
        problems = [UserError(what, where="data", hint=first.hint)]
    return sources, problems


def is_image_name(name: str) -> bool:
    """Whether a file of this name counts as an image, by its suffix alone."""
    return name.lower().endswith(SUFFIXES)


def is_read(name: str) -> bool:
    """Whether a name is that of an image or a video, or of a frame of one."""
    return is_image_name(name) or frames.is_video_name(name) or frames.parse(name) is not None


def no_shards_here(path: str, where: str) -> UserError:
    """The error for a shard where Ultralytics is to train, or labels are looked at file by file."""
    hint = (
        "unpack it (tar -xf, unzip) and name the folder; data= of pretrain, probe and embed, and labels=, read shards"
    )
    return UserError(f"{path} is a shard: images with labels are read from files here", where=where, hint=hint)


def no_frames_here(path: str, where: str) -> UserError:
    """The error for a video where images with labels are wanted."""
    hint = "name it as data= (or unlabelled=), which learn from frames; to train on labels, save frames as images"
    return UserError(f"{path} is a video: its frames have no labels", where=where, hint=hint)


def absolute_source(name: str) -> str:
    """A path or a glob made absolute: what is put before a relative glob is a folder, whatever its name has in it."""
    if not glob.has_magic(name) or os.path.exists(name):  # noqa: PTH110
        return absolute(name)
    return name if os.path.isabs(name) else os.path.join(glob.escape(os.getcwd()), name)  # noqa: PTH109, PTH117, PTH118


def absolute(path: str) -> str:
    """`path` made absolute; symlinks stay as the user wrote them unless ``..`` makes their meaning depend on them.

    So links are followed up to the last ``..`` alone: labels are looked for beside an image by the name that it has
    here, not beside the file in a store of DVC, git-annex or Hugging Face that it leads to.
    """
    parts = Path(path).parts if os.pardir in path else ()  # this test alone is quick, and mostly enough
    if os.pardir not in parts:
        return os.path.abspath(path)  # noqa: PTH100
    after = len(parts) - parts[::-1].index(os.pardir)
    return os.path.join(os.path.realpath(os.path.join(*parts[:after])), *parts[after:])  # noqa: PTH118


def _source(name: Any) -> Source:
    if not isinstance(name, (str, os.PathLike)) or not os.fspath(name).strip():
        raise UserError(f"cannot read images from {name!r}", where="data", hint=_EXPECTED)
    text = os.path.expanduser(os.fspath(name))  # noqa: PTH111
    if "\0" in text:
        raise UserError(f"{text!r} is not a path", where="data", hint=_EXPECTED)
    if is_compressed_name(text) and (is_address(text) or os.path.isfile(text)):  # noqa: PTH113
        what = f"{text} is a compressed tar, whose members cannot be read one by one"
        raise UserError(what, where="data", hint="unpack it to a plain tar (gunzip, unzstd): JPEGs hardly shrink")
    if "://" in text:
        return _at_address(text)
    if split(text) is not None:  # a member of a shard, as lists of images name them
        return Source(absolute(text), "image")
    if frames.parse(text) is not None:  # a frame, as lists of images name them
        return Source(absolute(text), "image")
    if not os.path.exists(text):  # noqa: PTH110
        if glob.has_magic(text):
            return Source(absolute_source(text), "glob")
        if (known := shipped(text)) is not None:
            return _dataset(known)
        raise _missing(text)
    path = absolute(text)
    if Path(path).is_dir():
        if not os.access(path, os.R_OK | os.X_OK):
            raise UserError(f"no permission to read the folder {path}", where="data")
        return Source(path, "folder")
    suffix = Path(path).suffix.lower()
    if suffix in dataset_yaml.SUFFIXES:
        return _dataset(Path(path))
    if suffix in SUFFIXES:
        return Source(path, "image")
    if suffix in frames.SUFFIXES:
        return Source(path, "video")
    if is_shard_name(path):
        return Source(path, "shard")
    if suffix == ".txt" or _lists_images(path):
        return Source(path, "list")
    what = f"{path} is not an image, a video, a shard, a list or a dataset YAML"
    raise UserError(what, where="data", hint=meant_dataset(path) or _EXPECTED)


def _lists_images(path: str) -> bool:
    """Whether a file of another suffix (``train.list``) is a list: one of its lines names an image."""
    with suppress(OSError):
        if os.path.isfile(path):  # noqa: PTH113 - a pipe is waited for without end
            with open(path, "rb") as file:  # noqa: PTH123
                head = file.read(_HEAD).decode("utf-8-sig", errors="surrogateescape")
            return "\0" not in head and any(is_image_name(line.strip()) for line in head.splitlines())
    return False


def _at_address(text: str) -> Source:
    """Shards at an address, or a folder or glob of them; single images there are not read."""
    kind = text.partition("://")[0].lower()
    if (member := split(text)) is not None:
        _ready_for(member.shard)
        return Source(text, "image")
    loose = is_read(text) or (kind in ("http", "https") and not is_shard_name(text))
    if not is_address(text) or loose:
        hint = "download the images and give their folder, or give shards there (.tar, .zip): headstart pack makes them"
        raise UserError(f"{text} is an address", where="data", hint=hint)
    _ready_for(text)
    return Source(text, "shard" if is_shard_name(text) and not glob.has_magic(text) else "address")


def _ready_for(address: str) -> None:
    from headstart.images import remote  # fsspec: for those who have addresses

    remote.check(address)


def _missing(text: str) -> UserError:
    """The error for a path that does not exist, with the nearest name in the deepest folder that does."""
    path = Path(absolute(text))
    parent = next((folder for folder in path.parents if folder.is_dir()), None)
    hint = None
    if parent is not None:
        wrong = path.relative_to(parent).parts[0]
        try:
            with os.scandir(parent) as entries:
                names = [entry.name for entry in islice(entries, 5000)]  # enough for folders of folders
        except OSError:
            names = []
        hint = meant_dataset(text) or did_you_mean(wrong, names) or f"{parent} exists, but has no {wrong!r}"
    return UserError(f"no such file or folder: {text}", where="data", hint=hint)


def _dataset(file: Path) -> Source:
    """Its train part, and what its other parts hold out."""
    try:
        found = read_dataset_yaml(file)
        named, channels = found.paths("train"), found.channels()
    except UserError as problem:
        told = f"{problem.where} {problem.what}" if problem.where else problem.what
        raise UserError(told, where="data", hint=problem.hint) from None
    looked = found.looked_for("train")
    if absent := found.absent("train"):
        raise UserError(absent.what, where="data", hint=absent.hint)
    train, problems = list[Source](), list[UserError]()
    for path in named:
        some, wrong = _all_of(path)
        train += some
        wrong += [no_frames_here(one.path, "") for one in some if one.kind == "video"]
        problems += [UserError(f"train of {file}: {one.what}{looked}", where="data", hint=one.hint) for one in wrong]
    if problems:
        raise UserError.several(problems)
    held_out = [path for part in found.parts if part != "train" for path in found.paths(part)]
    there = [source for path in held_out for source in _held_out(path)]
    keypoints = None
    with suppress(UserError):  # those who read the labels say so
        keypoints = found.keypoints()
    return Source(str(file), "dataset", tuple(train), tuple(there), channels, keypoints)


def _held_out(path: str) -> list[Source]:
    """What a held-out part names; what is not there cannot be mixed up with train."""
    if not (is_address(path) or is_pattern(path) or os.path.exists(path)):  # noqa: PTH110
        return []
    found, wrong = _all_of(path)
    if wrong and os.path.exists(path):  # noqa: PTH110
        raise wrong[0]
    return found


def channels_of(sources: Sequence[Source]) -> int:
    """Channels that images are read with: those that the datasets among the sources say, else 3.

    Raises:
        UserError: Two of them say different ones.
    """
    said = {source.channels: source.path for source in sources if source.channels is not None}
    if len(said) > 1:
        (one, first), (other, second) = list(said.items())[:2]
        hint = "give data sets of one number of channels: a detector reads one"
        raise UserError(f"{first} has images of {one} channels, {second} of {other}", where="data", hint=hint)
    return next(iter(said), None) or 3


def keypoints_of(sources: Sequence[Source]) -> tuple[int, int] | None:
    """``kpt_shape`` of the datasets among the sources; None where none is of poses, or two say different ones."""
    said = {source.keypoints for source in sources if source.keypoints is not None}
    return said.pop() if len(said) == 1 else None
