"""Pretrain a detector on unlabelled images: the whole job, from files to a checkpoint that was compared."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from headstart import ranks
from headstart.detectors.handback import HandBack
from headstart.errors import UserError
from headstart.files import seal, write_text
from headstart.images.cache import Cache, open_cache
from headstart.images.loader import ImageLoader, steps_for
from headstart.images.stream import Stream
from headstart.jobs.batch import measured_batch
from headstart.jobs.ending import Run, ended_early
from headstart.jobs.facts import facts_of, found_of
from headstart.jobs.finetune_file import how_to_go_on, write_settings
from headstart.jobs.going_on import START, command, saved_state
from headstart.jobs.labelled import RowReader
from headstart.jobs.making import make_method
from headstart.jobs.outlook import outlook
from headstart.jobs.pictures import PICTURES, draw
from headstart.jobs.prepare import Job, cache_folder, prepare
from headstart.jobs.search import pseudolabels_of
from headstart.jobs.signature import with_signature
from headstart.jobs.teacher import label_images, write_labels
from headstart.jobs.together import agreed, moved, of_another_machine, share, sharing, taken_part, told_to_others
from headstart.jobs.used_files import marks
from headstart.launch.cores import loader_workers
from headstart.launch.devices import layout_of, make_fabric, own_device
from headstart.launch.group import join_launched, others
from headstart.machine import Arithmetic, choose
from headstart.methods.base import Method
from headstart.probes.probe import during
from headstart.pseudolabels.base import PseudoLabels
from headstart.pseudolabels.labelling import Labelling
from headstart.run import clock
from headstart.run.display import Display, Filling, duration, make_console
from headstart.run.folder import RunFolder
from headstart.run.stopping import ended_by_signals
from headstart.settings.resolve import budget_seconds
from headstart.training import budget
from headstart.training.loop import Every, Length, Outcome, train
from headstart.training.memory import known
from headstart.training.norm import synchronized
from headstart.training.step import Step
from headstart.views.spec import needed_area

UNVERIFIED = "unverified.pt"


@with_signature("pretrain")
def pretrain(**options: Any) -> Run:
    """Pretrain a detector on unlabelled images.

    Args:
        options: As the command takes them; ``headstart pretrain --help`` lists all. ``data`` is needed.

    Raises:
        UserError: Every problem of the options together, before an image is read; later what cannot be gone on from.
    """
    join_launched()
    agreed(options)
    if not ranks.first():
        return taken_part(_Pretraining)
    if asked := of_another_machine(options):
        with others(*asked):
            return taken_part(_Pretraining)
    with told_to_others():
        job = prepare(options, measured_batch)
        # Before there is a folder: a run that cannot begin leaves none behind.
        folder = job.open_folder()
    try:
        with ended_by_signals(), others(job.run.device, job.run.devices, job.run.nodes):
            share(job, folder)
            return _Pretraining(job, folder).run()
    except BaseException as raised:
        error = known(raised) or raised
        ended_early(folder, error, new=job.record is None, again=command(folder.path, job.used()))
        if error is not raised:
            raise error from None
        raise
    finally:
        folder.end()


class _Pretraining:
    """One pretraining at work, in the order of its methods."""

    def __init__(self, job: Job, folder: RunFolder) -> None:
        self.job, self.folder, self.detector = job, folder, job.detector
        self.images, self.steps = job.images, job.steps
        self.files: dict[str, Any] = {}
        self.state = ranks.first_does(lambda: saved_state(folder)) if job.record else None
        if job.record:
            folder.truncate_metrics(self._start + 1)
        s, recorded = job.run, job.record["resolved"] if job.record else None
        self.device = own_device(s.device, s.devices)
        device = torch.device(str(self.device))
        self.workers = loader_workers(s.workers, device)
        self._rows = RowReader(self.images, self.workers)
        self.arithmetic: Arithmetic = choose(s.precision, s.channels_last, s.compile, device, recorded)
        self.fabric: Fabric = make_fabric(self.device, self.arithmetic.precision)
        self.began = time.perf_counter()
        self.searched = self.before = 0.0

    def run(self) -> Run:
        """Search, build the method, measure the budget, train, hand back."""
        s, job = self.job.run, self.job
        self.folder.make_loggers(s.loggers, make_console(stderr=True, soft_wrap=True).print)
        if not job.record and ranks.first():
            self._write_down()
        self._announce()
        labels = None
        if job.declared.method.needs.pseudolabels:
            found = pseudolabels_of(job, self.folder, self.steps, self.fabric.device, self.workers)
            labels, self.images, self.searched, self.before = found
            self.folder.keep()  # it may have taken hours
        torch.set_rng_state(ranks.from_first(torch.get_rng_state()))
        method = self._method(labels)
        trained = set(method.handed_back("student"))
        rest = {name: tensor for name, tensor in self.detector.module.state_dict().items() if name not in trained}
        if self.state:
            self.detector.module.load_state_dict(self.state["rest"], strict=False)
        probe = self._probe(method)
        with ExitStack() as stack:
            stack.enter_context(synchronized(method, self.fabric.device, s.sync_bn is not False))
            cache = stack.enter_context(self._cache(method, stack.enter_context(Filling())))
            self._rows.reader, self._rows.area = cache.reader, needed_area(method.view_specs())
            if s.budget:
                self.steps = self._within_budget(method, cache)
            loader = stack.enter_context(self._loader(method, cache, self.steps, self._start))
            display = self._begin(cache, loader, method.shown(s.batch_size))
            with display:
                outcome = train(
                    method,
                    loader,
                    fabric=self.fabric,
                    run=self.folder,
                    options=job.options,
                    length=Length(self.steps, s.batch_size, len(self.images)),
                    every=Every(s.log_every, s.save_every, s.probe_every),
                    seed=s.seed,
                    display=display,
                    rest=rest,
                    parts=s.accumulate,
                    probe=probe,
                    resume=self.state,
                    arithmetic=self.arithmetic,
                )
        return self._ended(display, method, outcome, labels, cache)

    @property
    def _start(self) -> int:
        return int(self.state["step"]) if self.state else 0

    # -- before the first step ----------------------------------------------------------------------------------------

    def _write_down(self) -> None:
        """Write what a killed run is gone on with from, before anything long begins."""
        job, start = self.job, self.folder.path / START
        if not isinstance(job.run.model, (str, Path)):
            self.detector.save(start, {})
            seal(start)
        early = {"images": len(job.images), "images_fingerprint": job.images.fingerprint(), "steps": None}
        self.files = marks(job.used())
        self.folder.write_settings(job.used(), {**early, "files": self.files, **found_of(self.job)}, job.asked)

    @property
    def _budget(self) -> float:
        return budget_seconds(self.job.run.budget or "") or 0.0

    def _method(self, labels: PseudoLabels | None) -> Method:
        return make_method(self.job, labels, self._rows, self._start)

    def _probe(self, method: Method) -> Callable[[], dict[str, float]] | None:
        """The probe of the run, which the first process makes and asks."""
        made = during(method.student, self.images, self.job.run) if ranks.first() else None
        return (lambda: ranks.first_does(made or dict)) if ranks.from_first(made is not None) else None

    def _cache(self, method: Method, progress: Filling) -> Cache:
        s = self.job.run
        return open_cache(
            s.cache,
            self.images,
            needed_area(method.view_specs()),
            folder=cache_folder(s),
            # How often images are read in a time budget is not known yet; as a rule, more than once.
            epochs=2.0 if s.budget else self.steps * s.batch_size / len(self.images),
            device=self.fabric.device,
            workers=self.workers,
            progress=progress,
            processes=ranks.world(),
        )

    def _loader(self, method: Method, cache: Cache, steps: int, start: int = 0, stop: int | None = None) -> ImageLoader:
        """Of a run of so many steps those from `start` to before `stop`, by default to its end."""
        s, on_device = self.job.run, cache.kind == "device"
        stream = method.order(steps) or Stream(len(self.images), s.batch_size, s.seed, shards=self.images.far())
        stream.rank, stream.world = ranks.rank(), ranks.world()
        return ImageLoader(
            self.images,
            batch=s.batch_size,
            max_area=needed_area(method.view_specs()),
            workers=0 if on_device else self.workers,
            seed=s.seed,
            start_step=start,
            steps=steps if stop is None else stop,
            pin=self.fabric.device.type == "cuda" and not on_device,
            reader=cache.reader,
            stream=stream,
            world=ranks.world(),
        )

    def _within_budget(self, method: Method, cache: Cache) -> int:
        """Steps that the time budget allows, after what was spent of it."""
        s = self.job.run
        fabric = make_fabric(self.device, self.arithmetic.precision)
        step = Step(method.to(memory_format=layout_of(self.arithmetic)), self.job.options, fabric, s.seed, s.accumulate)
        kept = ranks.from_first(cache.share())
        epoch = steps_for(1, len(self.images), s.batch_size) * (1 - (kept or 0.0))

        def loader_of(some: range) -> ImageLoader:
            return self._loader(method, cache, budget.TRIAL, some.start, some.stop)

        pace = budget.measure(step, loader_of, budget=self._budget, epoch=epoch, cached=kept is not None)
        spent = self.before + time.perf_counter() - self.began
        return budget.steps_within(self._budget, *ranks.from_first((pace, spent)))

    # -- what is said -------------------------------------------------------------------------------------------------

    def _tell(self, display: Display, *lines: str) -> None:
        for line in lines:
            self.folder.log(line)
            display.say(line)

    def _announce(self) -> None:
        """Say what was chosen and what it will take, before anything long begins."""
        job, console, lines = self.job, make_console(stderr=True, soft_wrap=True), [*self.job.why]
        if job.fit:
            warning = "" if job.fit.ok or not job.declared.method.needs.pseudolabels else "WARNING: "
            lines.insert(0, f"{warning}{job.fit.sentence()}")
        if seen := outlook(job, self._method, self.arithmetic):
            lines.append(seen.sentence())
        for line in lines:
            self.folder.log(line)
            console.print(line)

    def _begin(self, cache: Cache, loader: ImageLoader, shown: int) -> Display:
        """Write down what the run is, and say it."""
        job, detector = self.job, self.detector
        facts = self._facts(loader.workers) | {"cache": cache.kind, "shown": shown, "search_seconds": self.searched}
        if not job.record:
            self.folder.write_settings(job.used(), {**facts, "files": self.files}, job.asked)
        elif job.early:
            record = job.record
            self.folder.write_settings(record["options"], {**record["resolved"], **facts}, record.get("asked"))
        self.folder.keep()
        self.folder.skip(self.job.images.skipped)
        self.folder.start_loggers()
        display, backbone = Display(self.steps, self._start, cached=cache.share()), detector.backbone
        lines = [
            f"{facts['images']} images, {detector.name} ({detector.task}), backbone {backbone.width} wide at stride "
            f"{backbone.stride}",
            f"{self.steps} steps ({facts['epochs']:g} epochs) on {facts['device']}, {facts['precision']}, "
            f"into {self.folder.path}",
            *sharing(self.job.run),
            *detector.notes,
            *self.images.notes,
            *self._going_on(facts),
            self.arithmetic.why,
            cache.why,
            *filter(None, [loader.note]),
        ]
        self._tell(display, *lines)
        self.facts = facts
        return display

    def _going_on(self, facts: dict[str, Any]) -> list[str]:
        if not self.job.record:
            return []
        before = self.job.record["resolved"]
        lines = [f"going on from step {self._start}"]
        if before.get("images_fingerprint") != facts["images_fingerprint"]:
            lines.append(
                f"the images are not those that the run began with ({before.get('images')} then, {facts['images']} "
                "now): it goes on, but is not the run that it would have been"
            )
        return lines + moved(before, facts)

    def _facts(self, workers: int) -> dict[str, Any]:
        return {**facts_of(self.job, self.images, self.steps, self.fabric, self.arithmetic), "workers": workers}

    def _say_times(self, display: Display, shares: dict[str, float], cache: Cache) -> None:
        times = [clock.sentence(shares), clock.advice(shares, self.facts)] if any(shares.values()) else []
        self._tell(display, *filter(None, [*times, cache.ended, *self.folder.noted()]))

    # -- how it ends --------------------------------------------------------------------------------------------------

    def _ended(
        self, display: Display, method: Method, outcome: Outcome, labels: PseudoLabels | None, cache: Cache
    ) -> Run:
        """The first process ends the run; all label images, where it has labels."""
        self._rows.tell(self.folder)
        if outcome.interrupted:
            return ranks.first_does(lambda: self._interrupted(display, outcome, cache))
        handback, advised = ranks.first_does(lambda: self._handed_back(display, method, outcome, cache))
        parts = method, self.images, self._rows, self.folder, self.fabric.device
        labelled = label_images(self.job, *parts) if handback.ok else None
        return ranks.first_does(lambda: self._finish(display, method, outcome, labels, handback, advised, labelled))

    def _interrupted(self, display: Display, outcome: Outcome, cache: Cache) -> Run:
        self._say_times(display, outcome.shares, cache)
        self.folder.event(outcome.step, "info", "interrupted")
        self.folder.finish("interrupted")
        display.say(f"\nstopped at step {outcome.step} of {self.steps}; everything is saved. To go on:")
        display.say(f"  {command(self.folder.path, self.job.used())}")
        return Run(self.folder.path, None, None, outcome.step, interrupted=True)

    def _handed_back(
        self, display: Display, method: Method, outcome: Outcome, cache: Cache
    ) -> tuple[HandBack, Path | None]:
        """Hand the weights back and prove that they arrived; with the file of settings for fine-tuning."""
        self._say_times(display, outcome.shares, cache)
        method.to("cpu")
        exported = method.handed_back(self.job.run.export)
        self.detector.graft(exported)
        handback = self._hand_back(set(exported), outcome.step)
        for line in handback.lines():
            self._tell(display, line)
        return handback, write_settings(self.job, self.folder.path) if handback.ok else None

    def _finish(
        self,
        display: Display,
        method: Method,
        outcome: Outcome,
        labels: PseudoLabels | None,
        handback: HandBack,
        advised: Path | None,
        labelled: Labelling | UserError | None,
    ) -> Run:
        """Write labels, look at what was learnt."""
        job, folder = self.job, self.folder
        lines, problem = write_labels(job, method, labelled, self.images, folder) if labelled else ([], None)
        self._tell(display, *lines)
        drawn = job.run.report and self._draw(display, method, outcome, labels)
        why = f"; which and why: {folder.path / 'skipped.csv'}" if folder.skipped else ""
        display.say(f"{outcome.step} steps in {duration(outcome.seconds)}, {folder.skipped} images skipped{why}")
        if drawn:
            display.say(f"report:    {folder.path / 'report.html'}")
        if not handback.ok:
            folder.finish("failed")
            what = f"NOT HANDED BACK WHOLE: {handback.lost()}"
            self._tell(display, f"{what}; {UNVERIFIED} is to look at, not to train from")
            return Run(folder.path, None, handback, outcome.step, interrupted=False)
        folder.finish("done")
        for line in how_to_go_on(job, folder.result, advised):
            display.say(line)
        if problem:
            raise problem
        return Run(folder.path, folder.result, handback, outcome.step, interrupted=False)

    def _draw(self, display: Display, method: Method, outcome: Outcome, labels: PseudoLabels | None) -> bool:
        """Draw the report; a run that is finished stays so where that fails."""
        try:
            told = draw(self.job, self.folder.path, method, self.images, labels)
        except Exception as error:  # whatever drawing may raise
            again = f"headstart report {shlex.quote(str(self.folder.path))} draws it"
            self._tell(display, f"report could not be drawn: {type(error).__name__}: {error}; {again}")
            return False
        self._tell(display, *told)
        for name in PICTURES:
            self.folder.picture(outcome.step, name)
        return True

    def _hand_back(self, trained: set[str], step: int) -> HandBack:
        """Write the checkpoint; it gets its name when every tensor was found in it."""
        job, folder, detector = self.job, self.folder, self.detector
        info = {"method": job.declared.name, "export": job.run.export, "steps": step, "images": len(self.images)}
        unverified = folder.path / UNVERIFIED
        detector.save(unverified, info)
        handback = replace(detector.verify(unverified, trained=trained), of_user=job.given is not None)
        write_text(folder.path / "handback.json", json.dumps(handback.as_dict(), indent=2) + "\n")
        if handback.ok:
            unverified.replace(folder.result)  # a finished run that is gone on with has one until now
        else:
            folder.result.unlink(missing_ok=True)
        return handback
