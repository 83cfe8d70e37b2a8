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
from headstart.comparison.finetune import finetune
from headstart.comparison.grid import Cell
from headstart.comparison.pool import Done, Slot, run_all
from headstart.comparison.prepare import Prepared, facts
from headstart.comparison.records import CellResult, RateChoice, Results
from headstart.comparison.request import Training
from headstart.detectors.find import finetuner
from headstart.detectors.finetuner import LAST, FinetuneResult
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
            lost = [cell for cell in main if (cell.start, cell.budget) not in rates]
            error = f"not trained, for no learning rate worked at {{}}; {grid.LOOK}"
            self.records += [self._record(Done(self._training(one), None, error.format(one.budget))) for one in lost]
            done = self._train("cells", [cell for cell in main if cell not in lost])
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

    def _longer(self, done: Sequence[Done[Training, FinetuneResult]]) -> list[Cell]:
        """One scratch cell, of the largest budget and the first seed, with the time of the longest pretraining."""
        p = self.prepared
        extra = max((known.seconds for known in p.pretrainings.values()), default=0.0)
        if p.settings.longer == "true" and extra <= 0:
            self.say("longer=true: no start tells how long its pretraining took, so there is no longer scratch run")
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

    def _training(self, cell: Cell) -> Training:
        p = self.prepared
        listed = p.search[cell.budget] if cell.kind == "search" else p.lists[cell.budget, cell.seed]
        start = p.files[cell.start, cell.seed]
        return Training(cell, request.request(p.settings, cell, listed, start, p.folder), listed, start)

    def _train(self, what: str, cells: Sequence[Cell]) -> list[Done[Training, FinetuneResult]]:
        """Train cells, those that were finished before left out; the outcome of all, in their order."""
        trainings = [self._training(cell) for cell in cells]
        known = {one.cell: result for one in trainings if (result := one.finished())}
        todo = [one for one in trainings if one.cell not in known]
        if trainings:
            ready = f", {len(known)} of them done before" if known else ""
            self.say(f"{what}: {len(trainings)}{ready}; {self.why}")
        left = [_work(one.cell) for one in todo]

        def tell(done: Done[Training, FinetuneResult]) -> None:
            self._tell(done, left)

        self._began, self._work_done = time.monotonic(), 0.0
        outcome, stopped = run_all(todo, self.places, _train_one, tell)
        self._trained += len(outcome)
        fresh = {one.task.cell: one for one in outcome}
        done = [fresh.get(one.cell) or Done(one, known[one.cell]) for one in trainings]
        self.records += [self._record(one) for one in done]
        if stopped:
            raise Interrupted
        return done

    def _tell(self, done: Done[Training, FinetuneResult], left: list[float]) -> None:
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

    def _record(self, done: Done[Training, FinetuneResult]) -> CellResult:
        task, figures, error = done.task, None, done.error
        if done.result is not None:
            try:
                figures = figures_of(done.result, task.device())
            except UserError as problem:
                error = str(problem)
        return CellResult(
            **dataclasses.asdict(task.cell),
            folder=task.settings.folder.relative_to(self.prepared.folder).as_posix(),
            labels_sha256=task.labels.sha256,
            start_sha256=task.start.sha256,
            settings_sha256=task.settings_sha256,
            state="done" if figures else "failed" if error else "missing",
            error=error,
            figures=figures,
        )

    def _detections(self, done: Sequence[Done[Training, FinetuneResult]]) -> None:
        """What the detectors of the largest budget and the first seed find; a failure costs the pictures alone."""
        p = self.prepared
        keypoints = p.dataset.keypoints
        images = detections.choose_images(p.dataset.test, p.settings.pictures, keypoints)
        weights = {
            one.task.cell.start: one.task.settings.folder / LAST
            for one in done
            if one.result and (one.task.cell.budget, one.task.cell.seed) == (p.budgets[-1].name, p.settings.seeds[0])
        }
        made = (p.folder / shown.FILE).is_file() and not self._trained
        if made or not images or not weights:
            return
        model = finetuner(p.settings.model).architecture(p.settings.model)
        try:
            detections.detect(p.folder, model, weights, images, p.settings.imgsz, self.places[0].device, keypoints)
        except UserError as error:
            self.say(str(error), style="bold red")

    def _write(self) -> Results:
        content = results.conclude(facts(self.prepared, self.why), self.records, self.chosen)
        results.write_results(self.prepared.folder, content)
        return content

    def say(self, message: str, style: str = "") -> None:
        """Print a line."""
        self.console.print(Text(message, style=style))


def _train_one(training: Training, place: Slot, stop: threading.Event) -> FinetuneResult:
    """Train one cell, its start and its label list as they were when the comparison was prepared."""
    training.labels.check()
    settings = dataclasses.replace(training.settings, device=place.device, threads=place.threads)
    result = finetune(settings, stop)
    training.record(result, "cpu" if place.device == "cpu" else "mps" if place.device == "mps" else "cuda")
    return result


def _work(cell: Cell) -> float:
    """The work of a cell, up to a factor: images seen; a training has some work of its own, too."""
    return cell.epochs * (cell.images + 50.0)


def _seconds(result: FinetuneResult | None) -> float:
    """Time of a training's own epochs, without starting the process."""
    return result.curve[-1].seconds if result else 1.0
