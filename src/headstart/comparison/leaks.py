"""Test images among images that something was trained on, found by content."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from headstart.errors import UserError
from headstart.files import content_hash

_SHOWN = 3


def on_both_sides(test: Sequence[str], others: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs (test image, other image) of equal content, whatever the files are called.

    Sizes are compared first; only files whose size occurs on both sides are read.
    """
    by_size: dict[int, list[str]] = defaultdict(list)
    for path in test:
        by_size[_size(path)].append(path)
    by_size.pop(-1, None)
    suspects = [(size, path) for path in others if (size := _size(path)) in by_size]
    hashes = {content_hash(path): path for size in {size for size, _ in suspects} for path in by_size[size]}
    hashes.pop("", None)
    return [(hashes[digest], path) for _, path in suspects if (digest := content_hash(path)) in hashes]


def refuse_leaks(test: Sequence[str], others: Mapping[str, Sequence[str]]) -> None:
    """Raise where test images are also among images that something was trained on.

    Args:
        test: Paths of the test images.
        others: What the images are for -> their paths.

    Raises:
        UserError: The same content is on both sides; with examples.
    """
    problems = []
    for what, paths in others.items():
        if pairs := on_both_sides(test, paths):
            shown = "; ".join(f"{one} = {other}" for one, other in pairs[:_SHOWN])
            many = f"{len(pairs)} of {len(paths)} files have the content of a test image: {shown}"
            hint = "a score on images that were trained on says nothing: take them out on one side"
            problems.append(UserError(many, where=what, hint=hint))
    if problems:
        raise UserError.several(problems)


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return -1
