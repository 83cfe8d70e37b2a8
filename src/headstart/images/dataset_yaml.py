"""Dataset YAMLs of Ultralytics: one reader, for pretraining, probe and comparison. Nothing is downloaded here."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from headstart.errors import UserError, did_you_mean
from headstart.images.braces import names_something
from headstart.images.members import is_address, is_shard_name
from headstart.paths import expanded
from headstart.reading import parse_yaml

SUFFIXES = (".yaml", ".yml")
PARTS = ("train", "val", "test", "minival")
MOST_CHANNELS = 64
_MOST_CLASSES = 1_000_000
_MOST_BYTES = 2**20
_UNPRINTABLE = re.compile("[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]+")
_WITHIN = re.compile(r"(?<=\S)[ \t]+")
_NAMES = "names: a list, or numbers from 0 and names"


@dataclass(frozen=True)
class DatasetYaml:
    """What a dataset YAML says.

    Attributes:
        file: The YAML.
        root: Folder that its parts are relative to.
        looked: Folders that were looked at for its parts, the first being that of Ultralytics.
        parts: ``train``, ``val``, ``test``, ``minival``, as far as it has them -> paths as the YAML names them.
        download: How Ultralytics would download it; empty where it does not say.
        content: All that is in it.
        shipped: Whether Ultralytics ships it.
    """

    file: Path
    root: Path
    looked: tuple[Path, ...]
    parts: Mapping[str, tuple[str, ...]]
    download: str
    content: Mapping[str, Any]
    shipped: bool = False

    def paths(self, part: str) -> list[str]:
        """The paths of one part, which need not exist.

        Links are followed, as Ultralytics does: labels are looked for beside the folder that a link leads to.

        Raises:
            UserError: The YAML has no such part.
        """
        if part not in self.parts:
            known = [key for key in self.content if isinstance(key, str)]
            hint = did_you_mean(part, known) or f"name the folder of its images as {part}:"
            raise UserError(f"has no {part} images", where=str(self.file), hint=hint)
        return [name if is_address(name) else _real(_below(self.root, name)) for name in self.parts[part]]

    def there(self, part: str) -> bool:
        """Whether all paths of a part exist; what lies at addresses is taken to."""
        return all(is_address(path) or _is_there(Path(path)) for path in self.paths(part))

    def looked_for(self, part: str) -> str:
        """``" (looked for /a/images, /b/images)"`` for the first path of a part that does not exist; mostly ""."""
        named = [name for name in self.parts[part] if not is_address(name)]
        absent = next((name for name in named if not _is_there(_below(self.root, name))), None)
        places = list(dict.fromkeys(str((folder / absent).resolve()) for folder in self.looked)) if absent else []
        told = len(places) > 1 or (places and self.shipped)  # one place is in the message already
        return f" (looked for {', '.join(places)})" if told else ""

    def absent(self, part: str) -> UserError | None:
        """What to say where Ultralytics ships the data set, and the images of a part are not on this machine."""
        if not self.shipped or self.there(part):
            return None
        what = f"{self.file.name} is a data set that Ultralytics ships; its images are not on this machine"
        fetch = f"from ultralytics.data.utils import check_det_dataset; check_det_dataset({self.file.name!r})"
        hint = (
            f'download it once with Ultralytics, python -c "{fetch}"; or tell Ultralytics below which folder it is, '
            "yolo settings datasets_dir=FOLDER; or give a dataset YAML of your own"
        )
        return UserError(f"{what}{self.looked_for(part)}", hint=hint)

    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, by index: a list, a mapping from ``0`` or ``'0'``, or made up from ``nc``.

        Raises:
            UserError: There are none, or they do not agree with ``nc``.
        """
        names, count = self.content.get("names"), _count(self.file, self.content.get("nc"))
        if names is None and not count:
            raise UserError("has no class names", where=str(self.file), hint=_NAMES)
        if names is None:
            return tuple(f"class_{number}" for number in range(count or 0))
        if isinstance(names, dict):
            names = _in_order(names)
        if not isinstance(names, list) or not names:
            raise UserError("has class names that cannot be understood", where=str(self.file), hint=_NAMES)
        if count is not None and count != len(names):
            raise UserError(f"nc is {count}, but there are {len(names)} names", where=str(self.file))
        return tuple(str(name) for name in names)

    def channels(self) -> int:
        """``channels`` of its images: 3 where it does not say.

        Raises:
            UserError: It is no number of channels.
        """
        value = self.content.get("channels", 3)
        if type(value) is int and 1 <= value <= MOST_CHANNELS:
            return value
        raise UserError(f"channels must be a whole number up to {MOST_CHANNELS}, not {value!r}", where=str(self.file))

    def keypoints(self) -> tuple[int, int] | None:
        """``kpt_shape``: how many keypoints, and numbers of each; None for other than poses.

        Raises:
            UserError: It is not two such numbers.
        """
        shape = self.content.get("kpt_shape")
        if shape is None:
            return None
        if (
            isinstance(shape, list)
            and len(shape) == 2
            and type(shape[0]) is int
            and shape[0] > 0
            and shape[1] in (2, 3)
        ):
            return shape[0], shape[1]
        raise UserError(f"kpt_shape must be such as [17, 3], not {shape!r}", where=str(self.file))


def find_dataset_yaml(name: str) -> Path | None:
    """The file that `name` stands for: the user's, or one that Ultralytics ships (``coco8.yaml``); None for neither.

    A leading ``~``, which a shell leaves alone in ``data=~/my.yaml``, is the user's home.
    """
    path = expanded(name)
    if path.suffix.lower() not in SUFFIXES:
        return None
    return path if path.is_file() else shipped(name)


def meant_dataset(name: str) -> str:
    """What to do about a name that is no dataset YAML where one is wanted; "" where nothing near it is known."""
    path = expanded(name)
    if within := datasets_in(path):
        return f"give the dataset YAML in it: {within[0].file}"
    if path.suffix.lower() == ".ndjson":
        write = f"asyncio.run(convert_ndjson_to_yolo({json.dumps(name)}))"
        how = f"import asyncio; from ultralytics.data.converter import convert_ndjson_to_yolo; print({write})"
        return f"Ultralytics makes a dataset YAML and files of it: python -c {shlex.quote(how)}; give that YAML"
    if shipped(f"{name}.yaml"):
        return f"did you mean {name}.yaml?"
    return ""


def datasets_in(folder: Path) -> list[DatasetYaml]:
    """The dataset YAMLs that lie in a folder itself: those that say where their train images are."""
    with suppress(OSError), os.scandir(folder) as entries:
        named = [one.name for one in entries if one.name.lower().endswith(SUFFIXES) and not one.name.startswith(".")]
        found = [_dataset(folder / name) for name in sorted(named)]
        return [one for one in found if one and "train" in one.parts]
    return []


def _dataset(file: Path) -> DatasetYaml | None:
    with suppress(UserError, OSError):
        return read_dataset_yaml(file) if file.is_file() and file.stat().st_size < _MOST_BYTES else None
    return None


def shipped(name: str) -> Path | None:
    """The dataset YAML that Ultralytics ships under this name (``VOC.yaml``); None for a file of the user's."""
    if Path(name).is_file() or len(Path(name).parts) != 1:
        return None
    folder = _shipped_folder()
    path = folder / name if folder else None
    return path if path and path.is_file() else None


def _shipped_folder() -> Path | None:
    spec = find_spec("ultralytics")
    return Path(spec.origin).parent / "cfg" / "datasets" if spec and spec.origin else None


def read_dataset_yaml(file: Path) -> DatasetYaml:
    """Read a dataset YAML; its images need not be there.

    Args:
        file: As `find_dataset_yaml` gives it.

    Raises:
        UserError: It cannot be read, or something in it cannot be understood: all of it together.
    """
    content = _content(file)
    problems: list[UserError] = []
    parts = dict(_parts(file, content, problems))
    path = content.get("path")
    if path is not None and (not isinstance(path, str) or "\0" in path):
        problems.append(UserError(f"has a path that is none: {path!r}", where=str(file)))
    if problems:
        raise UserError.several(problems)
    from_ultralytics = file.parent == _shipped_folder()
    looked = _roots(file, path)
    looked = looked[:1] if from_ultralytics else looked
    first = next(iter(parts.values()), ())
    root = next((folder for folder in looked if any(_is_there(_below(folder, name)) for name in first)), looked[0])
    return DatasetYaml(file, root, looked, parts, str(content.get("download") or ""), content, from_ultralytics)


def _content(file: Path) -> dict[str, Any]:
    where = str(file)
    try:
        content = _parsed(file.read_bytes().decode("utf-8-sig", errors="ignore"))
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=where) from None
    except ValueError as error:
        raise UserError(f"is not valid YAML: {error}", where=where) from None
    if not isinstance(content, dict):
        raise UserError("is not a dataset YAML", where=where, hint="it needs train: <folder>, val: and names:")
    content = {key: None if value == "None" else value for key, value in content.items()}  # as Ultralytics has it
    if not content.get("val") and content.get("validation"):
        content["val"] = content["validation"]
    return content


def _parsed(text: str) -> Any:
    """The value of a YAML; of one that is none, as Ultralytics reads it, without what cannot be printed.

    So is UTF-16 read, which some editors and shells of Windows write. Tabs within a line are spaces for Ultralytics'
    parser, which is not used here: it is in C, and ends the process where brackets are nested too deeply.

    Raises:
        ValueError: It is no YAML.
    """
    try:
        return parse_yaml(text)
    except ValueError:
        printed = _UNPRINTABLE.sub("", text)
        spaced = _WITHIN.sub(lambda gap: gap[0].replace("\t", " "), printed)
        if spaced == text:
            raise
        return parse_yaml(spaced)


def _parts(file: Path, content: Mapping[str, Any], problems: list[UserError]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for key in PARTS:
        value = content.get(key)
        found: list[Any] = value if isinstance(value, list) else [value]
        if wrong := [name for name in found if value and not isinstance(name, str)]:
            what = f"must name {key} as a path or a list of paths, not {wrong[0]!r}"
            problems.append(UserError(what, where=str(file)))
        elif any("\0" in name for name in found if value):
            problems.append(UserError(f"names {key} with a character that no path has: {value!r}", where=str(file)))
        elif value:
            yield key, tuple(found)


def _in_order(names: Mapping[Any, Any]) -> list[Any] | None:
    """The values by number; None where the keys are not the numbers from 0."""
    try:
        numbered = {int(key): name for key, name in names.items()}
    except (TypeError, ValueError, OverflowError):
        return None
    whole = len(numbered) == len(names) and sorted(numbered) == list(range(len(numbered)))
    return [numbered[number] for number in range(len(numbered))] if whole else None


def _count(file: Path, value: Any) -> int | None:
    """``nc``, which Ultralytics takes as ``2``, ``2.0`` or ``'2'``."""
    if value is None:
        return None
    with suppress(TypeError, ValueError, OverflowError):
        if float(value) == int(float(value)) >= 0:
            if float(value) <= _MOST_CLASSES:
                return int(float(value))
            raise UserError(f"nc is {value!r}; {_MOST_CLASSES:,} classes at most are read", where=str(file))
    raise UserError(f"nc must be a whole number, not {value!r}", where=str(file))


def _roots(file: Path, path: str | None) -> tuple[Path, ...]:
    """Folders that the parts may be relative to: first where Ultralytics looks, then beside the YAML."""
    if not path:
        return (file.parent,)
    if Path(path).is_absolute():
        return (Path(path),)
    places = [Path(path)]
    with suppress(Exception):  # a broken settings file of Ultralytics must not hide the folder beside the YAML
        from ultralytics.utils import DATASETS_DIR  # imports torch: only for the few who need it

        places.append(Path(DATASETS_DIR) / path)
    places = [place for place in places if _is_there(place)] or places[-1:]
    beside = file.parent / path
    return (*places, *([beside] if beside not in places else []))


def _is_there(path: Path) -> bool:
    """Whether it, or what it stands for as a pattern, exists, as far as may be seen; no name that is too long does."""
    with suppress(UserError):  # of too many: said where they are looked for
        return names_something(str(path))
    return False


def _real(path: Path) -> str:
    """Where a path leads to; a link that is called as a shard keeps its name: files of stores have no suffix."""
    real = os.path.realpath(path)
    if is_shard_name(path.name) and not is_shard_name(real):
        return os.path.join(os.path.realpath(path.parent), path.name)  # noqa: PTH118
    return real


def _below(root: Path, name: str) -> Path:
    path = root / name
    if not _is_there(path) and name.startswith("../"):  # as older dataset exports have it, one level too high
        path = root / name[3:]
    return path


def dataset_of(labels: str) -> DatasetYaml:
    """The dataset YAML that ``labels=`` names.

    Raises:
        UserError: It is not there, is none, or lacks train part or class names.
    """
    file = find_dataset_yaml(labels)
    if file is None:
        hint = "give an Ultralytics dataset YAML: its train part are the labelled images, its names the classes"
        hint = meant_dataset(labels) or hint
        raise UserError(f"{labels} is no dataset YAML that is there", where="labels", hint=hint)
    dataset = read_dataset_yaml(file)
    dataset.class_names()
    dataset.paths("train")
    return dataset
