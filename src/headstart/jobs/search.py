"""The pseudo-labels of a pretraining: searched once before its first step, kept in its folder."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from headstart.detectors.base import Detector
from headstart.detectors.find import load_detector
from headstart.errors import UserError
from headstart.images.index import ImageIndex
from headstart.images.loader import ImageLoader, steps_for
from headstart.jobs.prepare import Job
from headstart.machine import loader_workers
from headstart.pseudolabels.base import PseudoLabels
from headstart.pseudolabels.search import Found, Search, find_pseudolabels
from headstart.run.display import Filling
from headstart.run.folder import RunFolder
from headstart.settings.resolve import budget_seconds
from headstart.settings.schema import MethodSettings, ProposalOptions, TeacherOptions
from headstart.teachers.base import Teacher, TeacherSource
from headstart.teachers.load import load_teacher
from headstart.training import budget

FILE = "pseudolabels.pt"


def pseudolabels_of(job: Job, folder: RunFolder, steps: int, device: torch.device) -> tuple[PseudoLabels, ImageIndex]:
    """What is found on the images that a run will see, and these images; in a run that goes on, as it was found.

    Raises:
        UserError: Nothing is found; or a run that goes on has other images, or has lost its pseudo-labels.
    """
    if job.record:
        if job.record["resolved"].get("images_fingerprint") != job.images.fingerprint():
            what = "the images are not those on which this run found its objects"
            raise UserError(what, where="data", hint="bring the images back, or start a new run")
        labels, rows = PseudoLabels.load(folder.path / FILE)
    else:
        # Loading a teacher draws random numbers; the method's heads are to be those of any other run.
        with torch.random.fork_rng(devices=[]):
            labels, rows = _search(job, folder, steps, device)
        labels.save(folder.path / FILE, rows)
    return labels, job.images if rows is None else job.images.subset(rows.tolist())


def teacher_of(options: MethodSettings, *, neck: bool = True) -> Teacher | None:
    """The teacher that a method's options name, if they do; of a YOLO its pyramid, or else its backbone's last map."""
    if not isinstance(options, TeacherOptions) or options.teacher is None:
        return None
    return load_teacher(TeacherSource.of(options.model_dump()), neck=neck)


def _search(job: Job, folder: RunFolder, steps: int, device: torch.device) -> tuple[PseudoLabels, Tensor | None]:
    """Pseudo-labels, and the rows of the images that they are for, where the time budget allows no more."""
    s, options, images = job.run, job.options, job.images
    assert isinstance(options, ProposalOptions)
    finder = job.detector if options.proposals is None else load_detector(options.proposals)
    teacher = teacher_of(options, neck=False)
    batches = steps_for(1, len(images), s.batch)
    batches = batches if s.budget else min(steps, batches)
    total = min(len(images), batches * s.batch)
    display = Filling(label="finding objects")

    def tell(line: str) -> None:
        folder.log(line)
        display.say(line)

    looks = f" and features of {teacher.name} to cluster them" if teacher else ""
    tell(f"searching {total:,} images for objects with {finder.name}{looks}, before the first step")
    found = _found(job, folder, finder, teacher, batches, device, display, total)
    for line in found.summary():
        tell(line)
    searched = int(found.searched.sum())
    if searched >= total:
        return found.labels, None
    tell(f"budget={s.budget} is enough to search {searched:,} of {total:,} images: the run uses these")
    rows = found.searched.nonzero()[:, 0]
    return found.labels.select(rows), rows


def _found(
    job: Job,
    folder: RunFolder,
    finder: Detector,
    teacher: Teacher | None,
    batches: int,
    device: torch.device,
    display: Any,
    total: int,
) -> Found:
    s, options = job.run, job.options
    assert isinstance(options, ProposalOptions)
    search = Search.of(options, s.seed)
    allowed = budget_seconds(s.budget or "")
    finder.module.to(device)
    with ImageLoader(
        job.images,
        batch=s.batch,
        max_area=2 * search.imgsz**2,
        workers=loader_workers(s.workers, device),
        seed=s.seed,
        steps=batches,
    ) as loader:
        return find_pseudolabels(
            finder,
            teacher or finder.trunk(),
            loader,
            len(job.images),
            search,
            device=device,
            skip=folder.skip,
            progress=display,
            total=total,
            seconds=budget.SEARCH * allowed if allowed else math.inf,
        )
