"""What a pretraining will take, said before anything long begins: a few real images, timed on the run's own network."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

import torch

from headstart import ranks
from headstart.images.index import ImageIndex
from headstart.images.loader import ImageLoader
from headstart.images.readers import FileReader
from headstart.images.samples import spread
from headstart.jobs.prepare import Job
from headstart.jobs.search import Tools, loaded, search_few
from headstart.launch.cores import loader_workers, own_cores
from headstart.launch.devices import layout_of, make_fabric, own_device
from headstart.launch.random_state import kept_random_state
from headstart.machine import Arithmetic
from headstart.methods.base import Method
from headstart.methods.schedules import Progress
from headstart.pseudolabels.base import PseudoLabels
from headstart.run.busy import busy
from headstart.run.display import duration
from headstart.training.budget import TRIAL, tried
from headstart.training.memory import known
from headstart.training.norm import synchronized
from headstart.training.step import Step, unchanged
from headstart.views.spec import ViewSpec, needed_area

IMAGES = 32
"""Images of a step that is timed on a CPU, where the time of a step goes with their number; a GPU gets whole steps."""
WARMUP, LEAST, MOST = 1, 3, 9
"""Steps before those that are timed, and how many these are: the middle one counts, where a machine is busy as well."""
SECONDS = 2.0
"""After which no further step is timed, once `LEAST` are."""
SHORT = 2_000
"""Images in all below which a run is as short as the trial."""
LONG = 3_600.0
"""Seconds from which the way to a shorter run is said."""

LARGE = 448
"""Side of images, in pixels, from which half of it is one that detectors are used with."""

_ALONE = 0.9
"""Share of the time below which it is said what a run would take at least on a machine that is not busy."""

Make = Callable[[PseudoLabels | None], Method]


@dataclass(frozen=True)
class Outlook:
    """What a run will take, roughly.

    Attributes:
        steps: Of the run.
        batch: Images a step.
        step: Seconds a step.
        search: Seconds of the search for objects; 0 where there is none.
        alone: Share of the time that it would take at least, had it the machine for itself: processor time.
        busy: That the machine is busy, in words; "" where it is not.
        imgsz: Side of the images of the steps, pixels.
        labels: Whether a teacher labels images between the steps, whose time nobody has tried.
    """

    steps: int
    batch: int
    step: float
    search: float = 0.0
    alone: float = 1.0
    busy: str = ""
    imgsz: int = 0
    labels: bool = False

    @property
    def seconds(self) -> float:
        """All together."""
        return self.search + self.steps * self.step

    def sentence(self) -> str:
        """``about 35 min: search 2 min, 1,000 steps of 32 images 33 min (estimate from a trial)``."""
        parts = [f"search {duration(self.search)}"] if self.search else []
        parts += [f"{self.steps:,} steps of {self.batch} images {duration(self.steps * self.step)}"]
        less = ""
        if self.seconds > LONG:
            smaller = f", imgsz={self.imgsz // 64 * 32} about a quarter" if self.imgsz >= LARGE else ""
            less = f"; budget=30m would make it half an hour{smaller}"
        others = ""
        if self.busy:
            least = f", {duration(self.seconds * self.alone)} or more when it is not" if self.alone < _ALONE else ""
            others = f"; {self.busy}{least}"
        others += "; the time in which its teacher labels images comes on top" if self.labels else ""
        return f"about {duration(self.seconds)}: {', '.join(parts)} (estimate from a trial{others}){less}"


def outlook(job: Job, make: Make, arithmetic: Arithmetic) -> Outlook | None:
    """Time the search on a few images and a few steps; nothing is changed by it.

    Args:
        job: The pretraining, of which nothing has been done.
        make: Makes its method, given pseudo-labels of the images that are tried.
        arithmetic: As the run computes.

    Of several processes all take the steps together, since losses may look at the images of all.

    Returns:
        None where the trial would take about as long as the run, where the time is given, or where no image could be
        used.

    Raises:
        Exception: What goes wrong in a step of one of several processes, for which the others then wait in vain.
    """
    s = job.run
    if job.record or s.budget or job.steps * s.batch_size < SHORT:
        return None
    device = torch.device(str(own_device(s.device, s.devices)))
    crowded = busy()  # before the trial, which is work as well
    share = s.batch_size // s.accumulate // ranks.world()
    few = share if device.type != "cpu" else min(share, IMAGES)
    images = some_of(job.images, 2 * few * ranks.world())
    searches = job.declared.method.needs.pseudolabels
    # What is drawn here must not change what the run draws.
    with kept_random_state(device):
        try:
            labels, search = ranks.first_does(lambda: _searched(job, images, device)) if searches else (None, 0.0)
            search /= ranks.world()  # not before: the first process tries it alone, and all search
            method = ranks.all_do(lambda: make(labels))
            taken = _step(job, method, images, few, arithmetic)
        except _InOneError as error:
            raise error.__cause__ or error from None
        except Exception as error:
            if known(error) is None:
                raise
            return None  # told by the run itself, with what else it finds
    alone = min(1.0, taken.alone / taken.clock) if device.type == "cpu" else 1.0
    teacher = job.declared.method.needs.labels
    return Outlook(
        job.steps, s.batch_size, taken.clock * share * s.accumulate, search, alone, crowded, s.imgsz, teacher
    )


class _InOneError(Exception):
    """One of several processes fails in a step by itself."""


@contextmanager
def _stepping() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if ranks.world() == 1:
            raise
        raise _InOneError from error


def some_of(images: ImageIndex, number: int) -> ImageIndex:
    """Some of the images, from all over the index."""
    return images.subset(spread(len(images), number))


def _searched(job: Job, images: ImageIndex, device: torch.device) -> tuple[PseudoLabels, float]:
    """What is found on a few images, and seconds that the whole search would take of one process."""
    tools: Tools = loaded(job)
    found, seconds = search_few(job, tools, images, device)
    total = min(len(job.images), job.steps * job.run.batch_size)
    return found, seconds * total


class Taken(NamedTuple):
    """Seconds an image of a step: by the clock; and of each thread of a CPU, as if no other work were there."""

    clock: float
    alone: float


def _step(job: Job, method: Method, images: ImageIndex, few: int, arithmetic: Arithmetic) -> Taken:
    """What a step takes, from steps of a `few` images; the mean of its phases, each as long as it is."""
    phases = [phase for phase in method.phases(TRIAL) if len(phase) > 1]
    taken: dict[tuple[ViewSpec, ...], Taken] = {}
    each: list[Taken] = []
    for phase in phases:
        # Never a step at which a method does more, such as labelling images.
        progress = Progress(tried(phase, 1, method).start, TRIAL, 0.0)
        specs = tuple(method.specs_at(progress))
        if specs not in taken:  # no matter here which images it reads
            taken[specs] = _at(progress, job, method, images, few, arithmetic)
        each += [Taken(*(one * len(phase) for one in taken[specs]))]
    length = sum(map(len, phases))
    return Taken(sum(one.clock for one in each) / length, sum(one.alone for one in each) / length)


def _at(progress: Progress, job: Job, method: Method, images: ImageIndex, few: int, arithmetic: Arithmetic) -> Taken:
    """What an image of one step takes."""
    s, fabric = job.run, make_fabric(own_device(job.run.device, job.run.devices), arithmetic.precision)
    method.to(memory_format=layout_of(arithmetic))
    area, rank, world = needed_area(method.view_specs()), ranks.rank(), ranks.world()
    reader = ranks.all_do(lambda: FileReader(images, area))
    own: dict[str, Any] = {"batch": few * world, "rank": rank, "world": world, "reader": reader}
    with (
        unchanged(method),
        synchronized(method, fabric.device, s.sync_bn is not False),
        ImageLoader(images, max_area=area, workers=0, seed=s.seed, steps=WARMUP + MOST, **own) as loader,
    ):
        step = Step(method, job.options, fabric, s.seed)
        reading: list[float] = []
        computing: list[float] = []
        threads: list[float] = []
        began, worked, batches = time.perf_counter(), time.process_time(), iter(loader)
        for number in range(WARMUP + MOST):
            mark = time.perf_counter()
            batch = ranks.all_do(lambda: next(batches))
            read = time.perf_counter()
            with _stepping():
                views = step.views(batch.to(fabric.device), progress._replace(step=progress.step + number))
                loss = step(views, progress)
                float(loss.detach())  # waits for the device
            done = time.perf_counter()
            reading.append(read - mark)
            computing.append(done - read)
            threads.append((time.process_time() - worked) / torch.get_num_threads())
            worked = time.process_time()
            if ranks.from_first(number >= WARMUP + LEAST - 1 and done - began > SECONDS):
                break
    method.to(memory_format=torch.contiguous_format)
    read, computed = (median(times[WARMUP:]) / few for times in (reading, computing))
    clock = together(read, computed, loader_workers(s.workers, fabric.device), fabric.device.type)
    return Taken(clock, median(threads[WARMUP:]) / few)


def together(reading: float, computing: float, workers: int, device: str) -> float:
    """Seconds a step where `workers` read while the device computes; on a CPU both share this process's cores."""
    if workers == 0:
        return reading + computing
    if device == "cpu":
        return computing + reading / own_cores()
    return max(computing, reading / workers)
