"""Pictures of pseudo-labels: the clusters, and what is made of them to train on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from headstart.images.decode import DecodeError, read_image
from headstart.images.index import ImageIndex
from headstart.probes import sheets
from headstart.pseudolabels.base import MARGIN, PseudoLabels
from headstart.pseudolabels.labelling import Detections, Labelling

ROWS, COLUMNS = 8, 8
WIDE = 4
"""Pictures in a row where names are read."""
_LETTERS = 24


def write_clusters(path: Path, found: PseudoLabels, images: ImageIndex) -> None:
    """A row for each of a few clusters, from the largest to the smallest; in it objects spread over the index."""
    counts = torch.bincount(found.labels)
    largest = counts.argsort(descending=True)[: int((counts > 0).sum())]
    shown = largest[torch.linspace(0, len(largest) - 1, min(ROWS, len(largest))).long()]
    owner = torch.repeat_interleave(torch.arange(len(found.first) - 1), found.first.diff())
    rows = []
    for cluster in shown.tolist():
        members = (found.labels == cluster).nonzero()[:, 0]
        spread = members[torch.linspace(0, len(members) - 1, min(COLUMNS, len(members))).long()]
        tiles = [_tile(images.path(int(owner[one])), found.boxes[one].tolist()) for one in spread.tolist()]
        if there := [tile for tile in tiles if tile is not None]:
            rows.append([sheets.Tile(there[0].pixels, f"{int(counts[cluster]):,}", there[0].boxes), *there[1:]])
    if rows:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheets.save(path, rows)


def write_labelled(folder: Path, labelled: Labelling, images: ImageIndex, names: Sequence[str]) -> dict[str, str]:
    """Images with the labels that a detector gives, in the color of their class, and in gray what it leaves open.

    ``sure.png``: of each class the images with the surest boxes; ``least-sure.png``: those with the least sure boxes
    that still are labels; ``open.png``: the images on which most is left open. A sheet without images is not written.

    Args:
        folder: Where to.
        labelled: What was found.
        images: The index.
        names: Of the classes.

    Returns:
        The sheets that could not be drawn, each with its error: one costs no other.
    """
    sure, unsure = labelled.sure, labelled.unsure
    number = torch.bincount(unsure.rows, minlength=len(images))
    sheets_of = {
        "sure": _by_class(sure, descending=True),
        "least-sure": _by_class(sure, descending=False),
        "open": number.argsort(descending=True, stable=True)[: int((number > 0).sum())].tolist(),
    }

    def draw(name: str) -> None:
        found = (_labelled(images.path(row), row, labelled, names) for row in sheets_of[name])
        _sheet(folder / f"{name}.png", list(islice((tile for tile in found if tile is not None), 2 * WIDE)))

    return sheets.failures({name: partial(draw, name) for name in sheets_of})


def _sheet(path: Path, tiles: list[sheets.Tile]) -> None:
    path.unlink(missing_ok=True)  # of the run before its last checkpoint
    if tiles:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [tiles[:WIDE], tiles[WIDE:]] if len(tiles) > WIDE else [tiles]
        sheets.save(path, lines, sizes=sheets.LARGE_TILES, limit=2 * sheets.LIMIT)


def _by_class(found: Detections, *, descending: bool) -> list[int]:
    """Rows in the order of their scores, the classes taking turns; each row once."""
    order = found.scores.argsort(descending=descending, stable=True)
    turns: dict[int, int] = {}
    ranked = []
    for place, one in enumerate(order.tolist()):
        label = int(found.labels[one])
        turns[label] = turns.get(label, 0) + 1
        ranked.append((turns[label], place, int(found.rows[one])))
    return list(dict.fromkeys(row for _, _, row in sorted(ranked)))


def _labelled(path: str, row: int, labelled: Labelling, names: Sequence[str]) -> sheets.Tile | None:
    """An image and what was found on it; None where it can no longer be read."""
    try:
        pixels = read_image(path, max_area=512 * 512)
    except DecodeError:
        return None
    height, width = pixels.shape[:2]
    outlines: list[tuple[float, float, float, float, int]] = []
    words = []
    for found, sure in ((labelled.sure, True), (labelled.unsure, False)):
        here = (found.rows == row).nonzero()[:, 0]
        parts = (found.boxes[here].tolist(), found.labels[here].tolist(), found.scores[here].tolist())
        for (x0, y0, x1, y1), label, score in zip(*parts, strict=True):
            outlines.append((x0 * width, y0 * height, x1 * width, y1 * height, label if sure else -1))
            words.append(f"{_drawable(names[label], label)}{'' if sure else '?'} {score:.2f}")
    return sheets.Tile(pixels, boxes=outlines, names=words)


def _drawable(name: str, label: int) -> str:
    """A class's name as far as the font of a picture has its letters, and not longer than a picture is wide."""
    short = name if len(name) <= _LETTERS else f"{name[: _LETTERS - 3]}..."
    return short if short.isprintable() and short.encode("latin-1", "ignore").decode("latin-1") == short else f"{label}"


def write_examples(path: Path, images: Tensor, owner: Tensor, boxes: Tensor, labels: Tensor) -> None:
    """What the detector is trained on: images of a step, and outlined the objects on them.

    Args:
        path: Where to.
        images: ``(B, 3, S, S)`` in [0, 1].
        owner: ``(N,)``: image of each object.
        boxes: ``(N, 4)``, in pixels.
        labels: ``(N,)``: the color of an outline tells labels apart.
    """
    tiles = []
    for place, image in enumerate(images[:COLUMNS].float().cpu()):
        own = owner == place
        outlines = zip(boxes[own].tolist(), labels[own].tolist(), strict=True)
        shown = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
        pixels = (shown.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        tiles.append(sheets.Tile(pixels, boxes=[(*box, label) for box, label in outlines]))
    sheets.save(path, [tiles[: COLUMNS // 2], tiles[COLUMNS // 2 :]])


def _tile(path: str, box: list[float]) -> sheets.Tile | None:
    """The surroundings of a box, and its outline; None where the image can no longer be read."""
    try:
        pixels = read_image(path, max_area=512 * 512)
    except DecodeError:
        return None
    height, width = pixels.shape[:2]
    x0, y0, x1, y1 = box[0] * width, box[1] * height, box[2] * width, box[3] * height
    half = max(MARGIN * max(x1 - x0, y1 - y0) / 2, 8)
    left, top = max(0, round((x0 + x1) / 2 - half)), max(0, round((y0 + y1) / 2 - half))
    right, bottom = min(width, round((x0 + x1) / 2 + half)), min(height, round((y0 + y1) / 2 + half))
    if right <= left or bottom <= top:
        return None
    outline = (x0 - left, y0 - top, x1 - left, y1 - top, 0)
    return sheets.Tile(pixels[top:bottom, left:right].copy(), boxes=(outline,))
