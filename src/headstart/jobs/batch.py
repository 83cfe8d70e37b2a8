"""``batch=auto``: real steps of the job's own method at growing batches, to see what memory has room for.

On a CPU they are taken in a process of their own, so that memory which runs out, or a system that ends the process for
it, costs the trial and not the run. Nothing of the run is changed.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from headstart import machine
from headstart.errors import RunError, UserError, is_out_of_memory, may_be_out_of_memory
from headstart.images.index import ImageIndex
from headstart.images.loader import ImageLoader
from headstart.images.workers import AHEAD, start_worker
from headstart.jobs.making import make_method
from headstart.jobs.outlook import some_of
from headstart.jobs.prepare import Job
from headstart.jobs.search import Tools, loaded, search_batches
from headstart.launch.children import end_with
from headstart.launch.cores import loader_workers
from headstart.launch.devices import layout_of, make_fabric, own_device, processes, training_devices
from headstart.launch.group import local_processes
from headstart.methods.base import Method
from headstart.methods.schedules import Progress
from headstart.pseudolabels.base import PseudoLabels
from headstart.run.display import make_console
from headstart.training.budget import TRIAL, tried
from headstart.training.memory import FIRST, LEAST, SHARE, BatchTrial, fitting_batch, judged, known, try_batches
from headstart.training.step import Step, unchanged
from headstart.views.spec import needed_area

STEPS = 2
"""Steps of each batch: what the optimizer keeps is there from the second."""
FOUND_ON = 64
"""Images that are searched for the objects of the steps; with fewer there would be too few clusters."""

Tried = dict[int, int | None]


def measured_batch(job: Job) -> BatchTrial:
    """The largest batch that fits: the job's own, or a half, a quarter, ... of it.

    Of several processes the first one tries the part of a device, by itself, as if there were no others.

    Args:
        job: With the largest batch in question, which is the method's.

    Raises:
        RunError: Not even two images a step fit.
    """
    s = job.run
    shares = processes(s.device, s.devices, s.nodes) * s.accumulate
    most, why = _most(job, shares)
    device = torch.device(str(own_device(s.device, s.devices)))
    if device.type not in ("cpu", "cuda"):
        batch = most * shares
        return BatchTrial(batch, f"batch={batch}, as {why}: what memory {device} has room for cannot be measured")
    make_console(stderr=True, soft_wrap=True).print("batch=auto: taking a few steps to see what memory has room for")
    # On a CPU all processes of the machine take from one memory.
    here = _local(job) if device.type == "cpu" else 1
    room = int(SHARE * _free(device)) // here
    try:
        tried = _tried(job, device, most, room)
    except _FailedError as error:
        return BatchTrial(most * shares, f"batch={most * shares}, as {why}: no step could be tried ({error})", {}, room)
    trial = judged(most, why, tried, room)
    if shares == 1:
        return trial
    batch = trial.batch * shares
    return replace(trial, batch=batch, why=f"batch={batch}, {shares} parts; of one of them {trial.why}")


def _local(job: Job) -> int:
    """Processes that the run has on this machine, or will have."""
    return max(local_processes(), len(training_devices(job.run.device, job.run.devices)))


class _FailedError(Exception):
    """Something else than memory ended the trial; the run meets it again, and tells it."""


def _most(job: Job, shares: int = 1) -> tuple[int, str]:
    """The largest batch in question, or of it the part that a device takes at once, a power of two, and why so many."""
    own, images = job.run.batch_size, len(job.images)
    most = 1 << (max(LEAST, min(own, images) // shares).bit_length() - 1)
    if images < own:
        return most, f"there are {images} images"
    return most, f"that is what {job.declared.name} is made for"


def _free(device: torch.device) -> int:
    """Bytes that are free on the device, and those that torch holds there and does not use."""
    if device.type == "cpu":
        return machine.memory()
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + held


def _forks(device: torch.device) -> bool:
    """Whether the trial can have a process of its own, which begins with all that was loaded."""
    return device.type == "cpu" and sys.platform == "linux"


def _tried(job: Job, device: torch.device, most: int, room: int) -> Tried:
    if not _forks(device):
        return _here(job, device, most, room)
    tried = _apart(job, device, most, room)
    while fitting_batch(tried, room) is None and min(tried) > LEAST:  # it was ended at the first batch
        tried |= _apart(job, device, min(tried) // 2, room)
    return tried


# -- a process of its own ---------------------------------------------------------------------------------------------


def _apart(job: Job, device: torch.device, most: int, room: int) -> Tried:
    """`_here` in a process of its own, which may end in the midst of a batch: then that one does not fit."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(theirs, os.getpid(), job, device, most, room), daemon=True)
    process.start()
    theirs.close()
    tried: Tried = {}
    try:
        with suppress(EOFError):
            while True:
                batch, needed = ours.recv()
                if isinstance(needed, str):
                    raise _FailedError(needed)
                tried[batch] = needed
    finally:
        process.kill()
        process.join()
        ours.close()
    if not tried:
        raise _FailedError("its process was ended by the system")
    return tried


def _child(pipe: Connection, parent: int, job: Job, device: torch.device, most: int, room: int) -> None:
    start_worker(0)
    end_with(parent, every=1.0)  # no signal reaches this process
    with suppress(OSError):  # where memory runs out all the same, this process is the one to go
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")

    def told(batch: int, needed: int | None) -> None:
        pipe.send((batch, needed))

    try:
        _here(job, device, most, room, told)
    except _FailedError as error:
        pipe.send((0, str(error)))


# -- the trial --------------------------------------------------------------------------------------------------------


def _here(
    job: Job, device: torch.device, most: int, room: int, told: Callable[[int, int | None], None] | None = None
) -> Tried:
    """Try batches; each is told as not fitting before it is begun, and as what it took after it."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []), _cleared(job, device):
        # Without a process of its own what it holds counts as well: how much that is can be told on Linux alone.
        before = _peak(device) if device.type == "cuda" or _forks(device) else 0
        try:
            trial = _Trial(job, device)
        except Exception as error:
            raise _FailedError(_sentence(error)) from error

        def need(batch: int) -> int | None:
            if told:
                told(batch, None)
            _forget_peak(device)  # of a larger batch that was tried before
            needed = trial(batch)
            if needed is not None:
                needed += _peak(device) - before
                if told:
                    told(batch, needed)
            return needed

        return try_batches(most, room, need)


class _Trial:
    """Steps of any batch of a job, all of them real but for the first step's place in the schedule.

    Calling it returns the bytes that its loader processes would hold beside; None where memory ran out.
    """

    def __init__(self, job: Job, device: torch.device) -> None:
        self.job, self.device = job, device
        self.tools: Tools | None = None
        self.images, self.labels = some_of(job.images, FOUND_ON), None
        s = job.run
        self.arithmetic = machine.choose(s.precision, s.channels_last, False, device)
        if job.declared.method.needs.pseudolabels:
            self.tools = loaded(job)
            self.labels = self._searched(self.images, min(FIRST, s.batch_size))

    def __call__(self, batch: int) -> int | None:
        try:
            if self.tools:
                with suppress(UserError):  # nothing found is no matter here
                    self._searched(some_of(self.job.images, batch), batch)
            return self._steps(batch)
        except Exception as error:
            # Where fewer images are left to try, they tell what an error without a cause was of.
            ran_out = may_be_out_of_memory(error) if batch > LEAST else is_out_of_memory(error)
            if ran_out or isinstance(error, RunError):  # a loader's is one of these
                return None
            raise _FailedError(_sentence(error)) from error

    def _searched(self, images: ImageIndex, batch: int) -> PseudoLabels:
        assert self.tools
        return search_batches(self.job, self.tools, images, self.device, batch)

    def _steps(self, batch: int) -> int:
        job, s, arithmetic = self.job, self.job.run, self.arithmetic
        images = job.images if self.labels is None else self.images
        method = make_method(job, self.labels)
        method.to(memory_format=layout_of(arithmetic))
        area, held = needed_area(method.view_specs()), 0
        largest = largest_step(method)
        with (
            unchanged(method),
            ImageLoader(images, batch=batch, max_area=area, workers=0, seed=s.seed, steps=STEPS) as loader,
        ):
            fabric = make_fabric(own_device(s.device, s.devices), arithmetic.precision)
            step = Step(method, job.options, fabric, s.seed)
            for number, pixels in enumerate(loader):
                held = max(held, pixels.pixels.numel())
                views = step.views(pixels.to(self.device), largest._replace(step=largest.step + number))
                loss = step(views, largest)
                float(loss.detach())  # waits for the device
        method.to(memory_format=torch.contiguous_format)
        if self.device.type != "cpu":
            return 0
        return held * AHEAD * loader_workers(s.workers, self.device, _local(job))


def largest_step(method: Method) -> Progress:
    """A step of the phase with the largest views, at which no more is done, such as labelling images."""
    starts = [Progress(tried(phase, 1, method).start, TRIAL, 0.0) for phase in method.phases(TRIAL) if len(phase) > 1]
    return max(starts, key=lambda one: max(spec.size for spec in method.specs_at(one)))


def _peak(device: torch.device) -> int:
    """Bytes that were taken at most."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    return machine.memory_peak()


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):  # on Linux; elsewhere the peak stays that of the largest
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


class _cleared:  # noqa: N801 - a context manager
    """On a GPU nothing stays behind: neither the network nor what torch has set aside."""

    def __init__(self, job: Job, device: torch.device) -> None:
        self.job, self.device = job, device

    def __enter__(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def __exit__(self, *_: Any) -> None:
        if self.device.type == "cuda":
            self.job.detector.module.to("cpu")
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)


def _sentence(error: Exception) -> str:
    said = known(error) or error
    return f"{type(said).__name__}: {str(said).splitlines()[0][:200] if str(said) else ''}"
