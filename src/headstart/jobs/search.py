"""The pseudo-labels of a pretraining: searched once before its first step, kept in its folder."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor

from headstart import ranks
from headstart.detectors.base import Detector
from headstart.detectors.find import load_detector
from headstart.errors import RunError, UserError
from headstart.images.index import ImageIndex
from headstart.images.loader import ImageLoader, steps_for
from headstart.jobs.going_on import FOUND, PARTS, searches_again
from headstart.jobs.prepare import Job
from headstart.pseudolabels.base import PseudoLabels, Stored
from headstart.pseudolabels.parts import Parts
from headstart.pseudolabels.search import Found, Search, find_pseudolabels, fitted_from
from headstart.reading import looked_at
from headstart.run.display import Filling, make_console
from headstart.run.folder import RunFolder
from headstart.run.stopping import interruptible
from headstart.settings.method_options import MethodSettings, ProposalOptions, TeacherOptions
from headstart.settings.resolve import budget_seconds
from headstart.teachers.base import Teacher, TeacherSource
from headstart.teachers.load import load_teacher
from headstart.training import budget

Asked = Callable[[], BaseException | None]


class Searched(NamedTuple):
    """What a run learns from.

    Attributes:
        labels: What is found on the images that the run will see.
        images: These images.
        seconds: That the search took, in all processes.
        before: Of these, what earlier processes took: a run that was ended in its search goes on with it.
    """

    labels: PseudoLabels
    images: ImageIndex
    seconds: float
    before: float


def pseudolabels_of(job: Job, folder: RunFolder, steps: int, device: torch.device, workers: int) -> Searched:
    """What is found on the images that a run will see; in a run that goes on, as it was found.

    All processes of the run search; the first one reads and writes the folder.

    Args:
        job: The pretraining.
        folder: Of the run.
        steps: Of the run; fewer than an epoch's see, and search, a part of the images.
        device: Where to compute.
        workers: Processes that load, beside this one.

    Raises:
        UserError: Nothing is found; or a run that goes on has other images, or has lost its pseudo-labels.
        KeyboardInterrupt: A process of several was asked to stop; what was found until then is kept.
    """
    path, parts = folder.path / FOUND, Parts()

    def begin() -> Stored | None:
        nonlocal parts
        if job.record and job.record["resolved"].get("images_fingerprint") != job.images.fingerprint():
            what = "the images are not those on which this run found its objects"
            raise UserError(what, where="data", hint="bring the images back, or start a new run")
        parts = Parts(folder.path / PARTS, folder.keep)
        return _stored(job, folder)

    def end() -> float:
        seconds = round(parts.seconds, 1)
        labels.save(path, rows, seconds)
        return seconds

    if before := ranks.first_does(begin):
        labels, rows, seconds = before
        spent = seconds
    else:
        spent = ranks.from_first(parts.seconds)
        # Loading a teacher draws random numbers; the method's heads are to be those of any other run.
        with _stoppable() as asked, torch.random.fork_rng(devices=[]):
            with Filling(label="finding objects") as display:
                labels, rows = _search(job, folder, steps, device, workers, parts, asked, display)
            seconds = ranks.first_does(end)
            if stopped := next(filter(None, ranks.of_all(asked())), None):
                raise stopped
    parts.remove()
    return Searched(labels, job.images if rows is None else job.images.subset(rows.tolist()), seconds, spent)


@contextmanager
def _stoppable() -> Iterator[Asked]:
    """Tells what this process was asked to stop by: of several all stop together, one alone is ended by the signal."""
    if ranks.world() == 1:
        yield lambda: None
        return
    with interruptible() as stop:
        yield lambda: stop.error() if stop.is_set() else None


def _stored(job: Job, folder: RunFolder) -> Stored | None:
    """What the search of a run that goes on has found; None where it is to be done, or, damaged, to be done again.

    Raises:
        UserError: It is damaged, and a time budget had cut the search: another would find other objects.
    """
    path = folder.path / FOUND
    if not job.record or (job.early and not path.is_file()):
        return None
    try:
        with looked_at(path):
            return PseudoLabels.load(path)
    except RunError:  # hours of search may lie there
        raise
    except UserError as error:
        if not searches_again(job.record):
            raise
        said = f"{error.what}; the images are searched again"
    folder.log(said)
    make_console(stderr=True, soft_wrap=True).print(said, style="bold red", markup=False)
    return None


def teacher_of(options: MethodSettings, *, neck: bool = True) -> Teacher | None:
    """The teacher that a method's options name, if they do; of a YOLO its pyramid, or else its backbone's last map."""
    if not isinstance(options, TeacherOptions) or options.teacher is None:
        return None
    return load_teacher(TeacherSource.of(options.model_dump()), neck=neck)


class Tools(NamedTuple):
    """What finds objects, and what their looks are clustered by where that is another network."""

    finder: Detector
    teacher: Teacher | None


def loaded(job: Job) -> Tools:
    """The detector and the teacher that the options of a run name."""
    options = job.options
    assert isinstance(options, ProposalOptions)
    finder = job.detector if options.proposals is None else load_detector(options.proposals, where="proposals")
    return Tools(finder, teacher_of(options, neck=False))


def search_few(job: Job, tools: Tools, images: ImageIndex, device: torch.device) -> tuple[PseudoLabels, float]:
    """The pseudo-labels of a few images, and the seconds that one of them takes, once all is warm.

    Raises:
        UserError: Nothing is found, or no image can be read.
    """
    batch = max(1, len(images) // 4)
    ends = [time.perf_counter()]
    batches = min(4, len(images))
    found = _find(job, tools, images, device, batch, batches, progress=lambda *_: ends.append(time.perf_counter()))
    warm = ends[1:] if batches > 1 else ends
    return found.labels, median(after - before for before, after in pairwise(warm)) / batch


def search_batches(job: Job, tools: Tools, images: ImageIndex, device: torch.device, batch: int) -> PseudoLabels:
    """The pseudo-labels of some images, searched `batch` at a time.

    Raises:
        UserError: Nothing is found, or no image can be read.
    """
    return _find(job, tools, images, device, batch, -(-len(images) // batch)).labels


def _loaded_by_all(job: Job) -> Tools:
    """`loaded`, in the first process before it is in the others: what it downloads is there for them."""
    mine: list[Tools] = []

    def load() -> None:
        mine.append(loaded(job))

    ranks.first_does(load)
    ranks.all_do(lambda: None if mine else load())
    return mine[0]


def _search(
    job: Job,
    folder: RunFolder,
    steps: int,
    device: torch.device,
    workers: int,
    parts: Parts,
    asked: Asked,
    display: Filling,
) -> tuple[PseudoLabels, Tensor | None]:
    """Pseudo-labels, and the rows of the images that they are for, where the time budget allows no more."""
    s, images = job.run, job.images
    tools = _loaded_by_all(job)
    batches = steps_for(1, len(images), s.batch_size)
    batches = batches if s.budget else min(steps, batches)
    total = min(len(images), batches * s.batch_size)

    def tell(line: str) -> None:
        folder.log(line)
        display.say(line)

    looks = f" and features of {tools.teacher.name} to cluster them" if tools.teacher else ""
    tell(f"searching {total:,} images for objects with {tools.finder.name}{looks}, before the first step")
    if parts.damaged:
        tell(parts.damaged)
    if parts.batches:
        tell(f"going on with the search: {min(parts.images, total):,} images were searched before")
    allowed = budget_seconds(s.budget or "")
    found = _find(
        job,
        tools,
        images,
        device,
        s.batch_size,
        batches,
        workers=workers,
        skip=folder.skip,
        progress=display,
        total=total,
        seconds=budget.SEARCH * allowed if allowed else math.inf,
        parts=parts,
        asked=asked,
    )
    for line in found.summary():
        tell(line)
    if ranks.from_first(parts.images >= total):  # those that cannot be read among them
        return found.labels, None
    searched = int(found.searched.sum())
    tell(f"budget={s.budget} is enough to search {searched:,} of {total:,} images: the run uses these")
    rows = found.searched.nonzero()[:, 0]
    return found.labels.select(rows), rows


def _find(
    job: Job,
    tools: Tools,
    images: ImageIndex,
    device: torch.device,
    batch: int,
    batches: int,
    *,
    workers: int = 0,
    parts: Parts | None = None,
    **more: Any,
) -> Found:
    """`find_pseudolabels` with the options of a run, on the first `batches` of `images` that `parts` has not.

    Of several processes each loads its share of these.
    """
    options, seed = job.options, job.run.seed
    assert isinstance(options, ProposalOptions)
    search = Search.of(options, seed)
    finder = tools.finder
    finder.module.to(device)
    first = ranks.from_first(parts.batches if parts else 0) + ranks.rank()
    with ImageLoader(
        images,
        batch=batch,
        max_area=fitted_from(search.imgsz),
        workers=workers if first < batches else 0,
        seed=seed,
        start_step=first,
        steps=batches,
        every=ranks.world(),
    ) as loader:
        looks = tools.teacher or finder.trunk()
        return find_pseudolabels(finder, looks, loader, len(images), search, device=device, parts=parts, **more)
