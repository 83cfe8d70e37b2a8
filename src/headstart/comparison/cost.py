"""What a comparison would cost: its trainings counted, and the time of each estimated from a short probe."""

from __future__ import annotations

import dataclasses
import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.table import Table

from headstart.comparison import grid, request
from headstart.comparison.finetune import finetune
from headstart.comparison.grid import Cell
from headstart.comparison.label_lists import write_list
from headstart.comparison.launcher import Launcher
from headstart.comparison.pace import Speed
from headstart.comparison.pool import Slot
from headstart.comparison.prepare import Prepared
from headstart.comparison.recipe_plans import RecipePlan, most_steps
from headstart.comparison.starts import Start, StartFile, build_start
from headstart.detectors.find import finetuner
from headstart.detectors.finetuner import FinetuneResult, FinetuneSettings
from headstart.errors import UserError
from headstart.files import write_text
from headstart.run.display import duration

_EPOCHS = 3
_SIZES = ((4, 2), (4, 8), (8, 2))
"""(training, test) images of each probe, in batches."""


def planned(prepared: Prepared, recipes: Sequence[RecipePlan] = ()) -> tuple[list[Cell], list[Cell]]:
    """The trainings of the search and of the grid; the rates are not known yet, which costs nothing."""
    p = prepared
    more = dict.fromkeys((budget.name for budget in p.budgets), most_steps(p, recipes))
    sizes = {budget: one.images for budget, one in p.search.items()}
    rates = {(start.name, budget.name): p.settings.lr[0] for start in p.starts for budget in p.budgets}
    search = grid.search_cells(p.settings, p.starts, p.budgets, sizes, more)
    return search, grid.main_cells(p.settings, p.starts, p.budgets, len(p.dataset.pool), rates, more)


def measure(prepared: Prepared, launcher: Launcher) -> Speed:
    """Train `_EPOCHS` epochs on a few batches, with as many trainings side by side as there will be.

    Two numbers of training images and two of test images give the time of each; the first epoch is left out, for it
    warms up.

    Raises:
        UserError: A probe failed, which says that the comparison would.
    """
    folder = prepared.folder / "probe"
    shutil.rmtree(folder, ignore_errors=True)
    requests = [_probe(prepared, folder, *size) for size in _SIZES]

    def train(request: FinetuneSettings, place: Slot, stop: threading.Event) -> FinetuneResult:
        return finetune(dataclasses.replace(request, device=place.device, threads=place.threads), stop, place)

    outcome, stopped = launcher.run_all(requests, train, shown=lambda request: f"probe {request.name}")
    shutil.rmtree(folder, ignore_errors=True)
    if stopped:
        raise KeyboardInterrupt
    found = [done.result for done in outcome if done.result]
    if len(found) < len(_SIZES):
        raise UserError(next(done.error for done in outcome if done.error))
    return _solve([_epoch(result) for result in found], [_counts(prepared, *size) for size in _SIZES], found[0])


def _counts(prepared: Prepared, train: int, test: int) -> tuple[int, int]:
    """Images of a probe, as far as there are any."""
    batch = prepared.settings.batch
    return min(train * batch, len(prepared.dataset.pool)), min(test * batch, len(prepared.dataset.test))


def _probe(prepared: Prepared, folder: Path, train: int, test: int) -> FinetuneSettings:
    p, name = prepared, f"{train}-{test}"
    folder.mkdir(parents=True, exist_ok=True)
    trained, tested = _counts(p, train, test)
    part = folder / f"test-{name}.txt"
    write_text(part, "".join(f"{image}\n" for image in p.dataset.test[:tested]))
    seed = p.settings.seeds[0]
    images = p.lists[p.budgets[-1].name, seed].file.read_text(encoding="utf-8").splitlines()
    known = set(images)
    extra = [image for image in p.dataset.pool if image not in known]
    listed = write_list(folder, name, p.dataset, [*images, *extra][:trained], part)
    cell = Cell("main", p.starts[0].name, name, seed, p.settings.lr[0], _EPOCHS, trained)
    start = next(file for (_, of), file in p.files.items() if of == seed) if p.files else _scratch(p)
    asked = request.request(p.settings, cell, listed, start, p.folder)
    return dataclasses.replace(asked, out=str(folder), name=name)


def _scratch(p: Prepared) -> StartFile:
    """A start to measure speed with, where all starts are still to be made."""
    seed, model = p.settings.seeds[0], finetuner(p.settings.model).architecture(p.settings.model)
    return build_start(Start("scratch", "scratch", ""), seed, p.dataset, model, p.folder / "starts" / "probe.pt")


def _epoch(result: FinetuneResult) -> float:
    """Seconds of an epoch after the first."""
    return (result.curve[-1].seconds - result.curve[0].seconds) / (len(result.curve) - 1)


def _solve(epochs: Sequence[float], counts: Sequence[tuple[int, int]], first: FinetuneResult) -> Speed:
    """Seconds an image from the three probes; where there are too few images to tell, all are taken as equal."""
    (trained, tested), (_, more_tested), (more_trained, _) = counts
    even = epochs[0] / (trained + tested)
    test = (epochs[1] - epochs[0]) / (more_tested - tested) if more_tested > tested else even
    train = (epochs[2] - epochs[0]) / (more_trained - trained) if more_trained > trained else even
    # Noise can make a difference of small times negative; a training image costs no less than a tested one.
    test = min(max(test, 0.05 * even), 2 * even)
    train = max(train, test, (epochs[0] - test * tested) / trained * 0.5)
    return Speed(max(0.0, first.seconds - len(first.curve) * epochs[0]), train, test)


def table(prepared: Prepared, places: Sequence[Slot], speed: Speed, recipes: Sequence[RecipePlan] = ()) -> Table:
    """The pretrainings and trainings, how many of each kind, and their time."""
    shown = Table(show_edge=False, pad_edge=False, collapse_padding=True)
    for head in ("trainings", "labels", "images", "epochs", "runs", "each", "together"):
        shown.add_column(
            head,
            justify="left" if head in ("trainings", "labels") else "right",
            no_wrap=head not in ("trainings", "labels"),
            overflow="fold",
        )
    count, total = 0, 0.0
    for plan in recipes:
        count, total = count + plan.runs, total + plan.seconds * plan.runs / len(places)
        steps = "–" if plan.steps is None else f"{plan.steps:,} steps"
        row = (f"recipe {plan.start}", plan.labels, f"{plan.images:,}", steps, str(plan.runs))
        times = (duration(plan.seconds), duration(plan.seconds * plan.runs / len(places)))
        shown.add_row(*row, *(times if plan.seconds else ("not known", "")))
    for what, group in _groups(prepared, recipes):
        first = group[0]
        validation = prepared.search[first.budget].test_images if first.kind == "search" else 0
        each = speed.of(first, validation or len(prepared.dataset.test))
        count, total = count + len(group), total + each * len(group) / len(places)
        row = (what, first.budget, f"{first.images:,}", str(first.epochs or "–"), str(len(group)))
        shown.add_row(*row, duration(each), duration(each * len(group) / len(places)))
    shown.add_section()
    shown.add_row("all", "", "", "", str(count), "", duration(total))
    return shown


def _groups(prepared: Prepared, recipes: Sequence[RecipePlan]) -> Iterator[tuple[str, list[Cell]]]:
    """What a row of the table is called, and its trainings, which cost the same; a name is said once."""
    search, main = planned(prepared, recipes)
    longer = {start.name for start in prepared.starts if start.longer}
    as_is = {start.name for start in prepared.starts if start.as_is}
    kinds = {
        "learning rates": [cell for cell in search if cell.start not in longer],
        "rates, longer": [cell for cell in search if cell.start in longer],
        "comparison": [cell for cell in main if cell.start not in longer | as_is],
        "measured as it is": [cell for cell in main if cell.start in as_is],
        **{name: [cell for cell in main if cell.start == name] for name in sorted(longer)},
    }
    for what, cells in kinds.items():
        told = what
        for budget in prepared.budgets:
            if group := [cell for cell in cells if cell.budget == budget.name]:
                yield told, group
                told = ""
    more, there = most_steps(prepared, recipes), {start.kind for start in prepared.starts}
    if more and prepared.settings.longer != "false" and "scratch" in there and "scratch-longer" not in there:
        cell = next(one for one in main[::-1] if one.start == "scratch")
        yield "longer scratch run", [grid.longer_cell(cell, prepared.settings.batch, more)]
