"""Images that are to judge the outcome of a run: those of ``val`` and ``test`` of what ``labels=`` names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain

from headstart.errors import UserError
from headstart.images.dataset_yaml import DatasetYaml, dataset_of
from headstart.images.finder import Finder
from headstart.images.index import ImageIndex
from headstart.images.members import split
from headstart.images.resolved import Resolver
from headstart.images.sources import Source, parse_sources

_SINGLE = ("image", "shard")


def without_judges(images: ImageIndex, data: str | Sequence[str], labels: str) -> ImageIndex:
    """The images but for those that the dataset of ``labels=`` lists as val or test: they are to judge the outcome.

    Pretrained on, and labelled by a teacher for an export, they would say more than is so. Whoever names such images
    themselves as ``data`` (the folder of val, one in it, its list) wants them, and has them, and no others.

    Args:
        images: The run's images, those of the dataset among them.
        data: The option.
        labels: The dataset YAML.
    """
    dataset = dataset_of(labels)
    judges = judges_among(images, data, dataset)
    if not judges:
        return images
    kept = images.subset([row for row in range(len(images)) if row not in judges])
    said = f"{len(judges):,} images are in val or test of {dataset.file}, and were left out, to judge the outcome"
    whole = f"data={dataset.file} leaves them out"  # what is said of a folder that is used with all that is in it
    kept.notes = (*(note for note in images.notes if whole not in note), said)
    kept.left_out, kept.skipped = images.left_out + len(judges), images.skipped
    return kept


def judges_among(images: ImageIndex, data: str | Sequence[str], dataset: DatasetYaml) -> set[int]:
    """The rows of the images that a dataset lists as val or test, and not as train; but for those that `data` names.

    Of several folders or lists of a part those count that are there: one that is not on this machine makes the images
    of the others no less of val.
    """
    sources, problems = parse_sources(str(dataset.file))
    if problems:
        raise UserError.several(problems)
    held_out = _Named(one for source in sources for one in source.held_out)
    if not held_out:
        return set()
    learnt, resolved = _Named(replace(source, labels=True) for source in sources), Resolver()
    rows = {row: known for row, path in enumerate(images) if (known := resolved(path)) in held_out}
    rows = {row: known for row, known in rows.items() if known not in learnt}
    if not rows:
        return set()
    wanted = list(_wanted([data] if isinstance(data, str) else data, held_out))
    return {row for row, known in rows.items() if not any(known in one for one in wanted)}


class _Named:
    """What sources name: images by their real paths, and shards whole."""

    def __init__(self, sources: Iterator[Source]) -> None:
        finder = Finder()
        for source in sources:
            finder.add(source)
        self._images, self._shards = finder.found.keys(), finder.shards

    def __bool__(self) -> bool:
        return bool(self._images or self._shards)

    def __contains__(self, known: str) -> bool:
        if known in self._images:
            return True
        return bool(self._shards) and (member := split(known)) is not None and member.shard in self._shards

    def within(self, other: _Named) -> bool:
        """Whether there is nothing in it that is not in another, too."""
        return all(one in other for one in chain(self._images, self._members_beyond(other)))

    def _members_beyond(self, other: _Named) -> Iterator[str]:
        """The images in its shards, of those that another has not as a whole."""
        from headstart.images import listing  # OpenCV: for those who have shards

        for real in self._shards.keys() - other._shards.keys():
            yield from (f"{real}/{name}" for name in listing.images_of(self._shards[real]))


def _wanted(data: Sequence[str], held_out: _Named) -> Iterator[_Named]:
    """What was named by itself: folders and lists of which nothing is for learning.

    Single files and shards are taken together, as a list is: braces, or a program, name all that there are.
    """
    sources = [one for one in parse_sources(data)[0] if one.kind != "dataset"]  # that is named for its train part
    single = [one for one in sources if one.kind in _SINGLE]
    for some in (single, *([one] for one in sources if one.kind not in _SINGLE)):
        named = _Named(iter(some))
        if named and named.within(held_out):
            yield named
