"""What a run began with, by a mark of its contents: a file or labels that were replaced since would change the run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headstart.errors import UserError
from headstart.files import content_hash
from headstart.images.index import ImageIndex
from headstart.methods.base import GivenLabels, Needs

STARTS = ("model", "init")
"""What a run is loaded from until its first checkpoint, which has all of it."""
SEARCHES = ("proposals",)
TEACHERS = ("teacher", "teacher_weights")


def marks(used: Mapping[str, Any]) -> dict[str, str]:
    """Option -> mark of the file that it names, of all options of a run."""
    named = {name: used.get(name) for name in (*STARTS, *SEARCHES, *TEACHERS)}
    found = {name: content_hash(one) for name, one in named.items() if isinstance(one, str) and Path(one).is_file()}
    return {name: mark for name, mark in found.items() if mark}


def replaced(
    began: Mapping[str, str], used: Mapping[str, Any], needs: Needs, *, saved: bool, found: bool
) -> list[UserError]:
    """Files that are not those that a run began with, of those that going on with it still needs.

    Args:
        began: `marks` as the run began; of an older version none.
        used: Its options now.
        needs: Of its method.
        saved: Whether it has a checkpoint.
        found: Whether it has its pseudo-labels, or those of another detector; without, what finds them is needed: the
            start itself, or `SEARCHES`.
    """
    searches = needs.pseudolabels and not found
    names: tuple[str, ...] = () if saved and not searches else STARTS
    names += SEARCHES if searches or (needs.labels and not found) else ()
    names += TEACHERS if needs.teacher or searches else ()
    now = marks({name: used.get(name) for name in names if name in began})
    hint = "bring back a copy of the file, or start a new run"
    return [
        UserError(
            f"{used[name]} is not the file that this run began with: its contents have changed", where=name, hint=hint
        )
        for name, mark in now.items()
        if began[name] != mark
    ]


def labels_mark(given: GivenLabels) -> dict[str, Any]:
    """What labels hold, for ``settings.yaml``: images, boxes, and a mark of classes and boxes, image after image.

    It does not tell where the images lie, nor which others are among them: a run may be moved.
    """
    labels, rows = given.labels, given.rows
    counts = labels.first[rows + 1] - labels.first[rows]
    digest = hashlib.sha256(repr([*given.names]).encode())
    for tensor in (counts, labels.labels, labels.boxes):
        digest.update(tensor.contiguous().numpy().tobytes())
    return {"images": len(rows), "boxes": len(labels.labels), "sha256": digest.hexdigest()}


def unchanged(resolved: Mapping[str, Any], images: ImageIndex) -> None:
    """Refuse images that are not those that a run with labels began with: what it labelled is kept by their order.

    Args:
        resolved: What its ``settings.yaml`` has under that name.
        images: The index as it is now.

    Raises:
        UserError: They are others, or lie elsewhere.
    """
    if (began := resolved.get("images_fingerprint")) and began != images.fingerprint():
        numbers = f"{resolved.get('images'):,} then, {len(images):,} now" if resolved.get("images") else "others"
        what = f"the images are not those that this run began with and has labels for: {numbers}"
        hint = "bring back what was there (nothing may be added, removed or moved), or start a new run"
        raise UserError(what, where="data", hint=hint)


def relabelled(resolved: Mapping[str, Any], given: GivenLabels, named: str) -> None:
    """Refuse labels that are not those that a run began with.

    Args:
        resolved: What its ``settings.yaml`` has under that name, the `labels_mark` as it began among it.
        given: The labels as they are now.
        named: The option ``labels``.

    Raises:
        UserError: They are others.
    """
    began = resolved.get("labels_mark", resolved.get("labels"))  # the name of it in earlier versions
    if not began or began == (now := labels_mark(given)):
        return
    then, here = (f"{one['boxes']:,} boxes on {one['images']:,} images" for one in (began, now))
    told = f"{then} then, {here} now" if then != here else f"{then}, others than then"
    what = f"the labels of {named} are not those that this run began with: {told}"
    raise UserError(what, where="labels", hint="bring back a copy of the label files, or start a new run")
