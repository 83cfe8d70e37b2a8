"""The pictures of a pretraining's report: what was fed, what was learnt, what was labelled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from headstart.images.index import ImageIndex
from headstart.images.loader import ImageLoader
from headstart.images.samples import sample_images
from headstart.jobs.prepare import Job
from headstart.methods.base import Method
from headstart.methods.schedules import Progress
from headstart.probes import assets, sheets
from headstart.pseudolabels.base import PseudoLabels
from headstart.pseudolabels.pictures import write_clusters, write_examples
from headstart.views.render import make_views
from headstart.views.spec import View, needed_area

PROBE_IMAGES = 256
PICTURES = ("sure", "least-sure", "open", "views", "neighbours", "components", "clusters", "examples")


def draw(job: Job, folder: Path, method: Method, images: ImageIndex, labels: PseudoLabels | None) -> list[str]:
    """Write pictures and report into the run's `folder`; a picture that fails costs neither another nor the report.

    Args:
        job: The pretraining.
        folder: Of the run.
        method: Trained.
        images: That it was trained on.
        labels: Their pseudo-labels, where the method has any.

    Returns:
        What could not be drawn and why, in sentences.
    """
    from headstart.report import write_report

    samples = [image for _, image in sample_images(images, PROBE_IMAGES, max_area=512 * 512)]
    failed: dict[str, str] = {}
    writers: dict[str, Callable[[], object]] = {}
    if samples:  # nearly all files are broken: a page without pictures
        writers["views"] = lambda: failed.update(_features(job, folder, method, samples))
        if labels is not None:
            writers["clusters"] = lambda: write_clusters(folder / "assets" / "clusters.png", labels, images)
            writers["examples"] = lambda: _examples(folder / "assets" / "examples.png", job, method, images)
    failed |= sheets.failures(writers)
    write_report(folder)
    return [f"picture {name} could not be drawn: {why}" for name, why in failed.items()]


def _features(job: Job, folder: Path, method: Method, samples: list[Tensor]) -> dict[str, str]:
    """Draw views, neighbours and components; the pictures that failed, each with its error."""
    detector = job.detector
    trunk = detector.trunk(neck=method.needs.trains != "backbone").eval()

    @torch.no_grad()
    def features(batch: Tensor) -> tuple[Tensor, Tensor]:
        last = trunk(batch)[-1]
        return last.mean(dim=(2, 3)), last

    stride = detector.backbone.stride
    imgsz = max(stride, job.run.imgsz // stride * stride)
    views = _views(samples[:6], method, job.run.seed)
    failed: dict[str, str] = assets.write_assets(folder, features, samples, views, imgsz=imgsz)["failed"]
    return failed


def _views(shown: list[Tensor], method: Method, seed: int) -> list[View]:
    height, width = (max(image.shape[side] for image in shown) for side in (1, 2))
    pixels = torch.zeros(len(shown), len(shown[0]), height, width, dtype=torch.uint8)
    for row, image in zip(pixels, shown, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = image
    sizes = torch.tensor([image.shape[1:] for image in shown])
    return make_views(pixels, sizes, method.view_specs(), torch.Generator().manual_seed(seed))


def _examples(path: Path, job: Job, method: Method, images: ImageIndex) -> None:
    """What the first images of the run become, where a method does not train on the views as they are."""
    specs, seed = method.view_specs(), job.run.seed
    area, batch = needed_area(specs), min(32, job.run.batch_size)
    with ImageLoader(images, batch=batch, max_area=area, workers=0, seed=seed, steps=1) as loader:
        first = next(iter(loader))
    random = torch.Generator().manual_seed(seed)
    views = make_views(first.pixels, first.sizes, specs, random, rows=first.indices)
    if (examples := method.examples(views, Progress(0, 1_000, 0.0))) is not None:
        write_examples(path, *examples)
