"""Run a comparison: choose the rates, train the cells side by side, put the results together."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.text import Text

from headstart.comparison import detections, grid, request, results, shown
from headstart.comparison.checks import figures_of
from headstart.comparison.child import Stopped
from headstart.comparison.finetune import FinetuneResult, finetune
from headstart.comparison.grid import Cell
from headstart.comparison.pool import Done, Slot, run_all
from headstart.comparison.prepare import Prepared, facts
from headstart.comparison.records import CellResult, RateChoice, Results
from headstart.comparison.request import Job
from headstart.errors import UserError
from headstart.run.display import duration, make_console

Rates = dict[tuple[str, str], float]


class Interrupted(Exception):  # noqa: N818 - nothing is wrong: Ctrl-C was pressed
    """Ctrl-C stopped the comparison; what was finished is kept."""


class Running:
    """One comparison at work.

    Args:
        prepared: Its data, lists and starts.
        places: Where trainings run.
        why: Why there are so many places.
        console: Where to say how it goes; standard error by default.
    """

    def __init__(self, prepared: Prepared, places: Sequence[Slot], why: str, console: Console | None = None) -> None:
        self.prepared, self.places, self.why = prepared, places, why
        self.console = console or make_console(stderr=True, soft_wrap=True)
        self.records: list[CellResult] = []
        self.chosen: list[RateChoice] = []
        self._began = self._work_done = 0.0
        self._trained = 0

    def run(self) -> Results:
        """Train all that is not done yet, and write ``results.json``.

        Raises:
            Interrupted: Ctrl-C; ``results.json`` holds what was finished.
        """
        for note in self.prepared.dataset.notes:
            self.say(note)
        try:
            rates = self._choose_rates()
            p = self.prepared
            main = grid.main_cells(p.settings, p.starts, p.budgets, len(p.dataset.pool), rates)
            done = self._train("cells", main)
            self._train("longer scratch run", self._longer(done))
            self._detections(done)
        except (Interrupted, Stopped, KeyboardInterrupt):
            self._write()
            raise Interrupted from None
        return self._write()

    def _choose_rates(self) -> Rates:
        p = self.prepared
        if len(p.settings.lr) == 1:
            rates = {(start.name, budget.name): p.settings.lr[0] for start in p.starts for budget in p.budgets}
            self._note_rates(rates, {})
            return rates
        sizes = {budget: one.images for budget, one in p.search.items()}
        done = self._train("search for learning rates", grid.search_cells(p.settings, p.starts, p.budgets, sizes))
        scores = {one.task.cell: one.result.map50_95 if one.result else None for one in done}
        rates = grid.choose_rates(p.settings, scores.items())
        self._note_rates(rates, scores)
        return rates

    def _note_rates(self, rates: Rates, scores: Mapping[Cell, float | None]) -> None:
        for (start, budget), rate in rates.items():
            tried = {f"{c.lr:g}": value for c, value in scores.items() if (c.start, c.budget) == (start, budget)}
            self.chosen.append(RateChoice(start=start, budget=budget, lr=rate, validation_map50_95=tried))

    def _longer(self, done: Sequence[Done[Job, FinetuneResult]]) -> list[Cell]:
        """One scratch cell, of the largest budget and the first seed, with the time of the longest pretraining."""
        p = self.prepared
        extra = max((known.seconds for known in p.pretrainings.values()), default=0.0)
        if p.settings.longer == "false" or extra <= 0:
            return []
        kinds = {start.name: start.kind for start in p.starts}
        own = [
            one
            for one in done
            if one.result
            and kinds[one.task.cell.start] == "scratch"
            and (one.task.cell.budget, one.task.cell.seed) == (p.budgets[-1].name, p.settings.seeds[0])
        ]
        return [grid.longer_cell(one.task.cell, _seconds(one.result), extra) for one in own if one.result]

    def _job(self, cell: Cell) -> Job:
        p = self.prepared
        listed = p.search[cell.budget] if cell.kind == "search" else p.lists[cell.budget, cell.seed]
        start = p.files[cell.start, cell.seed]
        return Job(cell, request.request(p.settings, cell, listed, start, p.folder), listed, start)

    def _train(self, what: str, cells: Sequence[Cell]) -> list[Done[Job, FinetuneResult]]:
        """Train cells, those that were finished before left out; the outcome of all, in their order."""
        jobs = [self._job(cell) for cell in cells]
        known = {job.cell: result for job in jobs if (result := job.finished())}
        todo = [job for job in jobs if job.cell not in known]
        if jobs:
            ready = f", {len(known)} of them done before" if known else ""
            self.say(f"{what}: {len(jobs)}{ready}; {self.why}")
        left = [_work(job.cell) for job in todo]

        def tell(done: Done[Job, FinetuneResult]) -> None:
            self._tell(done, left)

        self._began, self._work_done = time.monotonic(), 0.0
        outcome, stopped = run_all(todo, self.places, _train_one, tell)
        self._trained += len(outcome)
        fresh = {one.task.cell: one for one in outcome}
        done = [fresh.get(job.cell) or Done(job, known[job.cell]) for job in jobs]
        self.records += [self._record(one) for one in done]
        if stopped:
            raise Interrupted
        return done

    def _tell(self, done: Done[Job, FinetuneResult], left: list[float]) -> None:
        cell = done.task.cell
        spent = _work(cell)
        left.remove(spent)
        self._work_done += spent
        rate = (time.monotonic() - self._began) / self._work_done
        if done.result:
            text = f"mAP50-95 {done.result.map50_95:.3f} in {duration(done.result.seconds)}"
        else:
            text = f"FAILED: {done.error.splitlines()[0]}"
        more = f"; {len(left)} left, about {duration(rate * sum(left))}" if left else ""
        self.say(f"  {cell.shown}: {text}{more}", style="" if done.result else "bold red")

    def _record(self, done: Done[Job, FinetuneResult]) -> CellResult:
        job, figures, error = done.task, None, done.error
        if done.result is not None:
            try:
                figures = figures_of(done.result, job.device())
            except UserError as problem:
                error = str(problem)
        return CellResult(
            **dataclasses.asdict(job.cell),
            folder=job.settings.folder.relative_to(self.prepared.folder).as_posix(),
            labels_sha256=job.labels.sha256,
            start_sha256=job.start.sha256,
            settings_sha256=job.settings_sha256,
            state="done" if figures else "failed" if error else "missing",
            error=error,
            figures=figures,
        )

    def _detections(self, done: Sequence[Done[Job, FinetuneResult]]) -> None:
        """What the detectors of the largest budget and the first seed find; a failure costs the pictures alone."""
        p = self.prepared
        keypoints = p.dataset.keypoints
        images = detections.choose_images(p.dataset.test, p.settings.pictures, keypoints)
        models = {
            one.task.cell.start: one.task.settings.folder / "weights" / "last.pt"
            for one in done
            if one.result and (one.task.cell.budget, one.task.cell.seed) == (p.budgets[-1].name, p.settings.seeds[0])
        }
        made = (p.folder / shown.FILE).is_file() and not self._trained
        if made or not images or not models:
            return
        try:
            detections.detect(p.folder, models, images, p.settings.imgsz, self.places[0].device, keypoints)
        except UserError as error:
            self.say(str(error), style="bold red")

    def _write(self) -> Results:
        content = results.conclude(facts(self.prepared, self.why), self.records, self.chosen)
        results.write_results(self.prepared.folder, content)
        return content

    def say(self, message: str, style: str = "") -> None:
        """Print a line."""
        self.console.print(Text(message, style=style))


def _train_one(job: Job, place: Slot, stop: threading.Event) -> FinetuneResult:
    """Train one cell, its start and its label list as they were when the comparison was prepared."""
    job.labels.check()
    settings = dataclasses.replace(job.settings, device=place.device, threads=place.threads)
    result = finetune(settings, stop)
    job.record(result, "cpu" if place.device == "cpu" else "mps" if place.device == "mps" else "cuda")
    return result


def _work(cell: Cell) -> float:
    """The work of a cell, up to a factor: images seen; a training has some work of its own, too."""
    return cell.epochs * (cell.images + 50.0)


def _seconds(result: FinetuneResult | None) -> float:
    """Time of a training's own epochs, without starting the process."""
    return result.curve[-1].seconds if result else 1.0
