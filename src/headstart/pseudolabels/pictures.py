"""Pictures of pseudo-labels: the clusters, and what is made of them to train on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from headstart.images.decode import DecodeError, read_image
from headstart.images.index import ImageIndex
from headstart.probes import sheets
from headstart.pseudolabels.base import MARGIN, PseudoLabels
from headstart.pseudolabels.labelling import Detections

ROWS, COLUMNS = 8, 8


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


def write_taught(path: Path, found: Detections, images: ImageIndex, names: Sequence[str]) -> None:
    """Images with what a teacher labelled: the surest, the least sure, and those with most labels, a row each."""
    order = found.scores.argsort(descending=True, stable=True)
    places = {row: (found.rows == row).nonzero()[:, 0] for row in dict.fromkeys(found.rows[order].tolist())}
    surest = list(places)
    least = sorted(surest, key=lambda row: float(found.scores[places[row]].min()))
    most = sorted(surest, key=lambda row: -len(places[row]))
    rows = []
    for chosen in (surest, least, most):
        tiles = [_taught(images.path(row), found, places[row], names) for row in chosen[:COLUMNS]]
        if there := [tile for tile in tiles if tile is not None]:
            rows.append(there)
    if rows:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheets.save(path, rows)


def _taught(path: str, found: Detections, places: Tensor, names: Sequence[str]) -> sheets.Tile | None:
    """An image and the labels on it, the least sure named; None where the image can no longer be read."""
    try:
        pixels = read_image(path, max_area=512 * 512)
    except DecodeError:
        return None
    scale = torch.tensor([pixels.shape[1], pixels.shape[0]] * 2)
    boxes = (found.boxes[places] * scale).tolist()
    last = places[found.scores[places].argmin()]
    label = int(found.labels[last])
    outlines = [(*box, one) for box, one in zip(boxes, found.labels[places].tolist(), strict=True)]
    return sheets.Tile(pixels, f"{names[label]} {float(found.scores[last]):.2f}", outlines)


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
        pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
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
