"""The label files that belong to images that are packed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from headstart.errors import UserError
from headstart.images import decode
from headstart.images.dataset_yaml import DatasetYaml, dataset_of, read_dataset_yaml
from headstart.images.headers import DecodeError
from headstart.images.index import find_images
from headstart.images.labels import is_there, label_path
from headstart.images.resolved import Resolver
from headstart.images.sources import parse_sources
from headstart.settings.tools import PackSettings


class Labelled:
    """The images that have labels: those of the train parts of the dataset YAMLs that were named.

    Attributes:
        files: The dataset YAMLs.
        names: Of their classes.
        keypoints: Of their poses, or None.

    Raises:
        UserError: Two of them have different classes.
    """

    def __init__(self, s: PackSettings) -> None:
        sources, _ = parse_sources(s.data)
        found = [read_dataset_yaml(Path(one.path)) for one in sources if one.kind == "dataset"]
        found += [dataset_of(s.labels)] if s.labels else []
        found = list({one.file.resolve(): one for one in found}.values())
        self.files = [str(one.file.resolve()) for one in found]
        self.names, self.keypoints = (found[0].class_names(), found[0].keypoints()) if found else ((), None)
        for other in found[1:]:
            if (other.class_names(), other.keypoints()) != (self.names, self.keypoints):
                what = f"{found[0].file} and {other.file} have different classes"
                raise UserError(what, where="labels", hint="pack them into folders of their own")
        # Labels lie beside the path that train names, which may be a link to the one that data names.
        self._resolved = Resolver()
        self._images = {self._resolved(path): path for one in found for path in _train(one)}

    def plan(self) -> dict[str, Any]:
        """What of it the shards hold: others are not gone on with."""
        classes = {"classes": list(self.names)} if self.files else {}
        return {"labels": self.files, **classes}

    def names_image(self, image: str) -> bool:
        """Whether an image is a labelled one: one of train without a label file shows nothing."""
        return self._resolved(image) in self._images

    def of(self, image: str) -> bytes | None:
        """The label file of an image; None where it has none.

        Raises:
            DecodeError: It cannot be read.
        """
        named = self._images.get(self._resolved(image))
        if named is None or not is_there(path := label_path(named)):
            return None
        try:
            return decode.bytes_of(str(path))
        except DecodeError as error:
            raise DecodeError(f"its labels, {path}, cannot be read: {error.reason}") from None

    def found(self, image: str) -> bytes | None:
        """The same; None, too, where it cannot be read."""
        with suppress(DecodeError):
            return self.of(image)
        return None


def mark_of(texts: Iterable[bytes | None]) -> str:
    """Of the label files of some images."""
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        digest.update(b"-" if text is None else b"%d:%b" % (len(text), text))
    return digest.hexdigest()


def _train(dataset: DatasetYaml) -> Iterator[str]:
    return iter(find_images([], labels=str(dataset.file)))
