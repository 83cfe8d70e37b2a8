"""Run a comparison: make what recipes make, choose the rates, train the cells, put the results together."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console
from rich.text import Text

from headstart.comparison import detections, grid, results, shown
from headstart.comparison.child import Stopped
from headstart.comparison.facts import Made, facts
from headstart.comparison.finetune import finetune
from headstart.comparison.grid import Cell
from headstart.comparison.launcher import Launcher
from headstart.comparison.longer import most
from headstart.comparison.pace import Timed, speed_of, time_left
from headstart.comparison.pool import Done, Slot
from headstart.comparison.prepare import Prepared
from headstart.comparison.pretrainings import Node, Pretraining, made_anew, node_of, nodes, pretraining
from headstart.comparison.records import CellResult, RateChoice, Results
from headstart.comparison.request import PARENTS, Training, record_of, request, told_before
from headstart.comparison.start_records import PretrainingFacts
from headstart.comparison.starts import Start, StartFile, build_start, pretraining_of, unclassified
from headstart.detectors.find import finetuner
from headstart.detectors.finetuner import LAST, FinetuneResult
from headstart.errors import UserError
from headstart.run import notebook
from headstart.run.display import duration, make_console

Rates = dict[tuple[str, str], float]


class Interrupted(Exception):  # noqa: N818 - nothing is wrong: Ctrl-C was pressed
    """Ctrl-C stopped the comparison; what was finished is kept."""


class Running:
    """One comparison at work.

    Args:
        prepared: Its data, lists and starts.
        launcher: Where trainings run.
        console: Where to say how it goes; standard error by default.
        under_way: Called whenever a training or a pretraining has been finished.
        log: Told of every training that ended, now or before.
    """

    def __init__(
        self,
        prepared: Prepared,
        launcher: Launcher,
        console: Console | None = None,
        under_way: Callable[[], None] = lambda: None,
        log: Callable[[CellResult], None] = lambda cell: None,
    ) -> None:
        self.prepared, self.launcher, self.under_way, self.log = prepared, launcher, under_way, log
        self.console = console or make_console(stderr=True, soft_wrap=True)
        self.records: list[CellResult] = []
        self.chosen: list[RateChoice] = []
        self.made: dict[Node, Made] = {}
        self._began = 0.0
        self._times: list[Timed] = []
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
            done = [one for seeds in self._waves() for one in self._train_seeds(seeds, rates)]
            self._train("longer scratch run", self._longer(done))
            self._detections(done)
        except (Interrupted, Stopped, KeyboardInterrupt):
            self._write_more()
            raise Interrupted from None
        return self._write()

    def _waves(self) -> list[tuple[int, ...]]:
        """Seeds that are pretrained for together: enough to keep every place busy, so that figures come early.

        All at once where nothing is pretrained, and where a time limits a pretraining: only when all are done is it
        known how long what is trained for longer has to be.
        """
        p, seeds = self.prepared, self.prepared.settings.seeds
        runs = len(nodes(p, search=False, seeds=seeds[:1]))
        timed = any(one.recipe.options.get("budget") is not None for one in p.recipes.values())
        size = len(seeds) if not runs or timed else -(-len(self.launcher.places) // runs)
        return [tuple(seeds[first : first + size]) for first in range(0, len(seeds), size)]

    def _train_seeds(self, seeds: Sequence[int], rates: Rates) -> list[Done[Training, FinetuneResult]]:
        """Pretrain for some seeds, and train their cells."""
        p = self.prepared
        self._pretrain(search=False, seeds=seeds)
        if any(start.longer for start in p.starts) and any(one.error for one in self.made.values()):
            self._pretrain(search=False, seeds=p.settings.seeds)  # how long one that failed takes, the others may tell
        main = [cell for cell in self._asked(rates) if cell.seed in seeds]
        lost = {cell: why for cell in main if (why := self._why_not(cell, rates))}
        self._lose(lost)
        return self._train("cells", [cell for cell in main if cell not in lost])

    def _choose_rates(self) -> Rates:
        p = self.prepared
        given = {(name, budget.name): rate for name, rate in p.settings.start_lr.items() for budget in p.budgets}
        if len(p.settings.lr) == 1:
            tuned = [start.name for start in p.starts if not start.as_is]
            rates = {(name, budget.name): p.settings.lr[0] for name in tuned for budget in p.budgets} | given
            self._note_rates(rates, {})
            return rates
        self._pretrain(search=True, seeds=p.settings.seeds[:1])
        sizes = {budget: one.images for budget, one in p.search.items()}
        cells = grid.search_cells(p.settings, p.starts, p.budgets, sizes, self._more(search=True))
        lost = {cell: why for cell in cells if (why := self._why_not(cell))}
        self._lose(lost)
        done = self._train("search for learning rates", [cell for cell in cells if cell not in lost])
        scores = {one.task.cell: one.result.map50_95 if one.result else None for one in done}
        rates = (grid.choose_rates(p.settings, scores.items()) if cells else {}) | given
        self._note_rates(rates, scores)
        return rates

    def _note_rates(self, rates: Rates, scores: Mapping[Cell, float | None]) -> None:
        for (start, budget), rate in rates.items():
            tried = {f"{c.lr:g}": value for c, value in scores.items() if (c.start, c.budget) == (start, budget)}
            self.chosen.append(RateChoice(start=start, budget=budget, lr=rate, validation_map50_95=tried))

    # -- what recipes make ---------------------------------------------------------------------------------------------

    def _pretrain(self, *, search: bool, seeds: Sequence[int]) -> None:
        """Make the starts of recipes that the search, or the comparison, needs; one that fails sinks its own cells."""
        p = self.prepared
        runs = [pretraining(p, node) for node in nodes(p, search=search, seeds=seeds) if node not in self.made]
        self.made |= {run.node: Made(run) for run in runs}
        todo = [run for run in runs if not run.finished()]
        if runs:
            ready = f", {len(runs) - len(todo)} of them done before" if len(todo) < len(runs) else ""
            if ready:
                self.under_way()
            self.say(f"pretrainings: {len(runs)}{ready}; {self.launcher.why}")
        for line in made_anew(todo):
            self.say(line, style="bold yellow")
        outcome, stopped = self.launcher.run_all(todo, _pretrain_one, self._tell_made, lambda run: run.node.shown)
        if stopped:
            raise Interrupted
        failed = {done.task.node: done.error for done in outcome if done.error}
        self.made |= {run.node: self._started(run, failed.get(run.node, "")) for run in runs}

    def _tell_made(self, done: Done[Pretraining, float]) -> None:
        if not done.error:
            self.under_way()
        text = f"FAILED: {done.error.splitlines()[0]}" if done.error else f"in {duration(done.result or 0.0)}"
        self.say(f"  {done.task.node.shown}: {text}", style="bold red" if done.error else "")

    def _started(self, run: Pretraining, error: str) -> Made:
        """The start that a run became: built here, one after the other, for a build draws from torch's own seed."""
        p, node = self.prepared, run.node
        if error:
            return Made(run, error=error)
        start = Start(node.start, "checkpoint", str(run.checkpoint))
        model = finetuner(p.settings.model).architecture(p.settings.model)
        try:
            file = build_start(start, node.seed, p.dataset, model, p.folder / "starts" / f"{node.name}.pt")
            return Made(run, file, pretraining_of(start))
        except UserError as problem:
            return Made(run, error=str(problem))

    def _pretrainings(self, budget: str, *, search: bool) -> dict[str, list[PretrainingFacts]]:
        """What is known of the pretrainings behind the cells of a budget, start by start."""
        p = self.prepared
        found: dict[str, list[PretrainingFacts]] = {start.name: [] for start in p.starts}
        found |= {name: [one] for name, one in p.pretrainings.items()}
        # One that is measured as it is alone has no start of the name of its runs.
        names = {start.base: start.name for start in sorted(p.starts, key=lambda one: not one.as_is)}
        for node, made in self.made.items():
            if made.known and node.budget in ("", budget) and (node.search == search or not node.budget):
                found[names[node.start]].append(made.known)
        return found

    def _most(self, *, search: bool) -> dict[str, tuple[str, int]]:
        """Budget -> the start that takes the most steps, and the steps of its pretraining."""
        p = self.prepared
        known = {b.name: most(self._pretrainings(b.name, search=search), p.settings.batch) for b in p.budgets}
        return {budget: found for budget, found in known.items() if found}

    def _more(self, *, search: bool) -> dict[str, int]:
        return {budget: steps for budget, (_, steps) in self._most(search=search).items()}

    def _why_not(self, cell: Cell, rates: Rates | None = None) -> str:
        """Why a cell cannot be trained; "" where it can."""
        search = cell.kind == "search"
        start = self._named(cell.start)
        if start.kind == "recipe":
            made = self.made[node_of(self.prepared, start, cell.budget, cell.seed, search=search)]
            if made.file is None:
                return f"not trained, for its pretraining failed: {made.error}"
            if start.as_is and (why := unclassified(made.file)):
                return f"not measured as it is, for what was pretrained {why}"
        if start.longer and cell.budget not in self._most(search=search):
            return "not trained, for there is no finished pretraining that it could be as long as"
        if rates is not None and not start.as_is and (cell.start, cell.budget) not in rates:
            return f"not trained, for no learning rate worked at {cell.budget}; {grid.LOOK}"
        return ""

    def _lose(self, cells: Mapping[Cell, str]) -> None:
        """Record cells that cannot be trained, with the reason of each."""
        for cell, why in cells.items():
            self.records.append(self._lost(cell, why))
            self.log(self.records[-1])

    def _lost(self, cell: Cell, error: str) -> CellResult:
        p = self.prepared
        listed = p.search[cell.budget] if cell.kind == "search" else p.lists[cell.budget, cell.seed]
        return CellResult(
            **dataclasses.asdict(cell),
            folder=f"{PARENTS[cell.kind]}/{cell.name}",
            labels_sha256=listed.sha256,
            start_sha256="",
            state="failed",
            error=error,
        )

    def _named(self, name: str) -> Start:
        return next(one for one in self.prepared.starts if one.name == name)

    # -- trainings -----------------------------------------------------------------------------------------------------

    def _longer(self, done: Sequence[Done[Training, FinetuneResult]]) -> list[Cell]:
        """One scratch cell, of the largest budget and the first seed, with the steps of the longest pretraining."""
        p, budget = self.prepared, self.prepared.budgets[-1].name
        more = self._more(search=False).get(budget, 0)
        if p.settings.longer == "true" and not more:
            self.say("longer=true: no start tells the steps of its pretraining, so there is no longer scratch run")
        if p.settings.longer == "false" or not more or any(start.kind == "scratch-longer" for start in p.starts):
            return []
        kinds = {start.name: start.kind for start in p.starts}
        own = [one.task.cell for one in done if one.result and kinds[one.task.cell.start] == "scratch"]
        own = [cell for cell in own if (cell.budget, cell.seed) == (budget, p.settings.seeds[0])]
        return [grid.longer_cell(cell, p.settings.batch, more) for cell in own]

    def _training(self, cell: Cell) -> Training:
        p = self.prepared
        listed = p.search[cell.budget] if cell.kind == "search" else p.lists[cell.budget, cell.seed]
        start = self._start(cell)
        return Training(cell, request(p.settings, cell, listed, start, p.folder), listed, start)

    def _start(self, cell: Cell) -> StartFile:
        p, start = self.prepared, self._named(cell.start)
        if start.kind != "recipe":
            return p.files[cell.start, cell.seed]
        made = self.made[node_of(p, start, cell.budget, cell.seed, search=cell.kind == "search")]
        assert made.file is not None, "a cell without its start is not trained"
        return made.file

    def _train(self, what: str, cells: Sequence[Cell]) -> list[Done[Training, FinetuneResult]]:
        """Train cells, those that were finished before left out; the outcome of all, in their order."""
        trainings = [self._training(cell) for cell in cells]
        known = {one.cell: result for one in trainings if (result := one.finished())}
        todo = [one for one in trainings if one.cell not in known]
        if trainings:
            ready = f", {len(known)} of them done before" if known else ""
            if known:
                self.under_way()
            self.say(f"{what}: {len(trainings)}{ready}; {self.launcher.why}")
        for line in told_before(known, todo, finetuner(self.prepared.settings.model).versions()):
            self.say(line, style="bold yellow")
        for one in (one for one in trainings if one.cell in known):
            self.log(record_of(Done(one, known[one.cell])))
        left = [one.cell for one in todo]
        # A terminal has a line for each that has ended; in a notebook a bar shows that it is at work.
        bar = notebook.Bar(what, len(todo)) if todo and notebook.in_notebook() else None
        if bar:
            bar.start()

        def tell(done: Done[Training, FinetuneResult]) -> None:
            self._tell(done, left)
            if bar:
                bar.update(len(todo) - len(left))

        self._began, self._times = time.monotonic(), []
        outcome, stopped = self.launcher.run_all(todo, _train_one, tell, lambda training: training.cell.shown)
        self._trained += len(outcome)
        fresh = {one.task.cell: one for one in outcome}
        done = [fresh.get(one.cell) or Done(one, known[one.cell]) for one in trainings]
        self.records += [record_of(one) for one in done]
        if stopped:
            raise Interrupted
        return done

    def _tell(self, done: Done[Training, FinetuneResult], left: list[Cell]) -> None:
        cell = done.task.cell
        left.remove(cell)
        if done.result:
            self._times.append(Timed(done.result, cell.images, self._tests(cell)))
            self.under_way()
            text = f"mAP50-95 {done.result.map50_95:.3f} in {duration(done.result.seconds)}"
        else:
            text = f"FAILED: {done.error.splitlines()[0]}"
        self.say(f"  {cell.shown}: {text}{self._left(left)}", style="" if done.result else "bold red")
        self.log(record_of(done))

    def _left(self, left: Sequence[Cell]) -> str:
        """How many are left and how long they take, by what those that are done took; for the end of a line."""
        speed = speed_of(self._times)
        if not left or speed is None:
            return f"; {len(left)} left" if left else ""
        expected = [speed.of(cell, self._tests(cell)) for cell in left]
        done, elapsed = [one.result.seconds for one in self._times], time.monotonic() - self._began
        places = min(len(self.launcher.places), len(left) + len(done))
        return f"; {len(left)} left, about {duration(time_left(done, expected, places, elapsed))}"

    def _tests(self, cell: Cell) -> int:
        p = self.prepared
        return p.search[cell.budget].test_images if cell.kind == "search" else len(p.dataset.test)

    def _detections(self, done: Sequence[Done[Training, FinetuneResult]]) -> None:
        """What the detectors of the largest budget and the first seed find; a failure costs the pictures alone."""
        p = self.prepared
        budget, seed = p.budgets[-1].name, p.settings.seeds[0]
        weights = {
            one.task.cell.start: one.task.settings.folder / LAST
            for one in done
            if one.result and (one.task.cell.budget, one.task.cell.seed) == (budget, seed)
        }
        try:
            detections.show(p, self.launcher, weights, budget, seed, changed=bool(self._trained))
        except UserError as error:
            self.say(str(error), style="bold red")

    def _write_more(self) -> None:
        """Write what was finished, now or before, unless that is what is there.

        A comparison that was given more to do may be stopped before it has looked at what was done before.
        """
        if self._trained:  # pictures that are there may be of detectors that are there no more
            (self.prepared.folder / shown.FILE).unlink(missing_ok=True)
        try:
            known = results.read_results(self.prepared.folder)
        except UserError:  # none yet, or none that can be read
            known = None
        before = known.rates if known else ()
        rates = {(one.start, one.budget): one.lr for one in (*before, *self.chosen)}
        self._look_before(rates, before)
        now = {_which(cell): cell for cell in self.records if (cell.kind, cell.state) == ("main", "done")}
        asked = {_which(cell) for cell in self._asked(rates)}
        if known is None or now != {_which(cell): cell for cell in known.finished() if _which(cell) in asked}:
            self._write()

    def _look_before(self, rates: Rates, before: Sequence[RateChoice]) -> None:
        """Record trainings that nobody has looked at, were finished before and are still asked for, and their rates."""
        p, seen = self.prepared, {_which(cell) for cell in self.records if cell.kind == "main"}
        for run in [pretraining(p, node) for node in nodes(p, search=False, seeds=p.settings.seeds)]:
            known = self.made.get(run.node)
            if known is None or not (known.file or known.error):  # nobody has come to it, or it was stopped beside one
                self.made[run.node] = self._started(run, "") if run.finished() else Made(run)
        left = [cell for cell in self._asked(rates) if _which(cell) not in seen and not self._why_not(cell, rates)]
        found = [Done(one, result) for one in map(self._training, left) if (result := one.finished())]
        self.records += map(record_of, found)
        given = {(one.task.cell.start, one.task.cell.budget) for one in found}
        given -= {(one.start, one.budget) for one in self.chosen}
        self.chosen += [one for one in before if (one.start, one.budget) in given]

    def _asked(self, rates: Rates) -> list[Cell]:
        """The cells of all seeds."""
        p = self.prepared
        return grid.main_cells(p.settings, p.starts, p.budgets, len(p.dataset.pool), rates, self._more(search=False))

    def _write(self) -> Results:
        known = facts(self.prepared, self.launcher.why, self.made, self._most(search=False))
        content = results.conclude(known, self.records, self.chosen)
        results.write_results(self.prepared.folder, content)
        return content

    def say(self, message: str, style: str = "") -> None:
        """Print a line."""
        self.console.print(Text(message, style=style))


def _which(cell: Cell | CellResult) -> tuple[str, str, int]:
    return cell.start, cell.budget, cell.seed


def _train_one(training: Training, place: Slot, stop: threading.Event) -> FinetuneResult:
    """Train one cell, its start and its label list as they were when the comparison was prepared."""
    training.labels.check()
    settings = dataclasses.replace(training.settings, device=place.device, threads=place.threads, key=training.mark)
    result = finetune(settings, stop, place)
    training.record(result, "cpu" if place.device == "cpu" else "mps" if place.device == "mps" else "cuda")
    return result


def _pretrain_one(run: Pretraining, place: Slot, stop: threading.Event) -> float:
    run.make(place, stop)
    return run.seconds
