"""Pictures of what a network sees: views, neighbours, principal components."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from headstart.files import write_text
from headstart.probes import sheets
from headstart.probes.metrics import feature_spread, nearest_neighbours, principal_components, rankme, spread_alarm
from headstart.probes.sheets import Tile

Features = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Images float (B, 3, S, S) in [0, 1] -> pooled features (B, D) and the feature map (B, C, h, w)."""


class SeenView(Protocol):
    """What the sheet needs of a `headstart.views.spec.View`; sample r of every view comes from sample image r."""

    @property
    def images(self) -> Tensor:
        """Float (B, 3, S, S) in [0, 1]."""

    @property
    def boxes(self) -> Tensor:
        """Float (B, 4), x0 y0 x1 y1 of the crop in pixels of the source image."""

    @property
    def spec(self) -> object:
        """Its ``name`` titles the column."""


def write_assets(
    run_dir: str | Path,
    features: Features,
    samples: Sequence[Tensor],
    views: Sequence[SeenView] = (),
    *,
    imgsz: int = 224,
    map_imgsz: int | None = None,
    batch: int = 32,
    device: str | torch.device = "cpu",
) -> dict[str, Any]:
    """Write ``assets/``: views.png, neighbours.png, components.png and probe.json, under 1.5 MB together.

    A picture that cannot be made (too few images, features that are not finite) is left out, and an older one
    removed; probe.json says why, and by which error a picture failed.

    Args:
        run_dir: The run folder.
        features: The network, in evaluation mode; called without gradients, on square center crops.
        samples: Source images, uint8 (3, H, W) RGB, of any size. Neighbours are looked for among all of them.
        views: Views made from the first samples, in their order, for the sheet.
        imgsz: Side of the images fed for the measures and the neighbours.
        map_imgsz: Side of the images fed for the components; twice `imgsz` when None: the map is coarse.
        batch: Images fed at once.
        device: Where `features` computes.

    Returns:
        What probe.json holds.
    """
    folder = Path(run_dir) / "assets"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("views.png", "neighbours.png", "components.png"):
        (folder / name).unlink(missing_ok=True)
    found: dict[str, Any] = {"images": len(samples), "imgsz": imgsz}
    left_out: dict[str, str] = {}

    def fed(images: Tensor) -> tuple[Tensor, Tensor]:
        return features(images.to(device))

    writers: dict[str, Callable[[], dict[str, object]]] = {
        "views": lambda: _write_views(folder, samples, views),
        "neighbours": lambda: _write_neighbours(folder, samples, fed, imgsz, batch),
        "components": lambda: _write_components(folder, samples, fed, map_imgsz or 2 * imgsz, batch),
    }

    def tell(name: str) -> None:
        try:
            found.update(writers[name]())
        except _LeftOutError as reason:
            left_out[name] = str(reason)

    with torch.no_grad():
        failed = sheets.failures({name: partial(tell, name) for name in writers})
    found |= {"left_out": left_out, "failed": failed}
    write_text(folder / "probe.json", json.dumps(found, indent=2, allow_nan=False) + "\n")
    return found


class _LeftOutError(Exception):
    """Why a picture cannot be made."""


def _write_views(folder: Path, samples: Sequence[Tensor], views: Sequence[SeenView]) -> dict[str, object]:
    """views.png: a row for each image, the original with the outlines of its crops first, then every view."""
    rows = min([len(samples), 4, *(len(view.images) for view in views)])
    if not views or not rows:
        return {}
    titles, kinds = _titles(views)
    sheet = []
    for row in range(rows):
        crops = [view.boxes[row].tolist() for view in views]
        boxes = [(*crop, kind) for crop, kind in zip(crops, kinds, strict=True)]
        line = [Tile(_pixels(samples[row]), "" if row else "original", boxes)]
        for title, view in zip(titles, views, strict=True):
            line.append(Tile(_pixels(view.images[row]), "" if row else title))
        sheet.append(line)
    sheets.save(folder / "views.png", sheet, gap_after=[0])
    return {"views": titles, "view_rows": rows}


def _titles(views: Sequence[SeenView]) -> tuple[list[str], list[int]]:
    """A title for each view, e.g. ``local 2`` for the second that is called local, and the number of its kind."""
    names = [str(getattr(view.spec, "name", "view")).rstrip("0123456789 _-") or "view" for view in views]
    kinds = list(dict.fromkeys(names))
    titles = [f"{name} {names[: i + 1].count(name)}" if names.count(name) > 1 else name for i, name in enumerate(names)]
    return titles, [kinds.index(name) for name in names]


def _write_neighbours(
    folder: Path, samples: Sequence[Tensor], features: Features, size: int, batch: int
) -> dict[str, object]:
    """neighbours.png: four images, spread over the samples, each before its 5 nearest; and the measures."""
    if len(samples) < 2:
        raise _LeftOutError("fewer than 2 sample images")
    pooled = torch.cat([features(images)[0].float().cpu() for images in _batches(samples, size, batch)])
    if not pooled.isfinite().all():
        raise _LeftOutError("the features are not finite")
    indices, cosines = nearest_neighbours(pooled, 5)
    queries = list(range(0, len(samples), -(-len(samples) // 4)))
    rows = []
    for query in queries:
        row = [Tile(_pixels(_square(samples[query], size)), "query")]
        for index, cosine in zip(indices[query].tolist(), cosines[query].tolist(), strict=True):
            row.append(Tile(_pixels(_square(samples[index], size)), f"{cosine:.3f}"))
        rows.append(row)
    sheets.save(folder / "neighbours.png", rows, gap_after=[0])
    directions = functional.normalize(pooled, dim=1)
    count = len(samples)
    return {
        "dim": pooled.shape[1],
        "feature_spread": feature_spread(pooled).item(),
        "spread_alarm": spread_alarm(pooled.shape[1]),
        "rankme": rankme(pooled),
        "rankme_max": min(pooled.shape),
        "cosine_any_two": ((directions.sum(dim=0).square().sum().item() - count) / (count * (count - 1))),
        "cosine_nearest": cosines[:, 0].mean().item(),
        "neighbours": [
            {
                "query": query,
                "indices": indices[query].tolist(),
                "cosines": [round(c, 4) for c in cosines[query].tolist()],
            }
            for query in queries
        ],
    }


def _write_components(
    folder: Path, samples: Sequence[Tensor], features: Features, size: int, batch: int
) -> dict[str, object]:
    """components.png: images beside the principal components of their feature maps, three pairs a row."""
    if not samples:
        raise _LeftOutError("no sample images")
    chosen = list(samples[:: -(-len(samples) // 6)])
    maps = torch.cat([features(images)[1].float().cpu() for images in _batches(chosen, size, min(batch, 8))])
    if not maps.isfinite().all():
        raise _LeftOutError("the features are not finite")
    tiles = []
    for image, colors in zip(chosen, principal_components(list(maps)), strict=True):
        tiles += [Tile(_pixels(_square(image, size))), Tile(_pixels(colors.permute(2, 0, 1)), smooth=False)]
    sheets.save(
        folder / "components.png", [tiles[start : start + 6] for start in range(0, len(tiles), 6)], gap_after=[1, 3]
    )
    return {"components": {"images": len(chosen), "imgsz": size, "cells": list(maps.shape[-2:])}}


def _batches(samples: Sequence[Tensor], size: int, batch: int) -> Iterator[Tensor]:
    """The center squares of `samples` as float (B, 3, size, size) in [0, 1]."""
    for start in range(0, len(samples), batch):
        yield torch.stack([_square(image, size) for image in samples[start : start + batch]])


def _square(image: Tensor, size: int) -> Tensor:
    """The center square of a uint8 (3, H, W) image as float (3, size, size) in [0, 1], anti-aliased."""
    height, width = image.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    crop = image[None, :, top : top + side, left : left + side].cpu().float() / 255
    return functional.interpolate(crop, (size, size), mode="bilinear", antialias=True, align_corners=False)[0].clamp(
        0, 1
    )


def _pixels(image: Tensor) -> NDArray[np.uint8]:
    """An image (C, H, W), uint8 or float in [0, 1], as uint8 (H, W, 3) to show; of many channels the first three."""
    pixels = image.detach().cpu()
    pixels = pixels[:3] if len(pixels) >= 3 else pixels[:1].expand(3, -1, -1)
    if pixels.is_floating_point():
        pixels = (pixels.float().clamp(0, 1) * 255).round().to(torch.uint8)
    return np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
