"""Compare starts of a detector under control: the whole job, from options to a report."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.text import Text

from headstart.comparison import cost, wording
from headstart.comparison.cell_loggers import CellLoggers
from headstart.comparison.launcher import Launcher, open_launcher
from headstart.comparison.prepare import open_folder, prepare
from headstart.comparison.recipe_plans import plan_recipes
from headstart.comparison.records import CellResult, Check, Results
from headstart.comparison.runner import Interrupted, Running
from headstart.files import OwnedFolder
from headstart.jobs import compare_options
from headstart.jobs.ending import say
from headstart.jobs.recipes import lengths
from headstart.jobs.signature import with_signature
from headstart.run.busy import busy
from headstart.run.display import make_console
from headstart.run.provenance import untested
from headstart.run.stopping import ended_by_signals
from headstart.settings.schema import CompareSettings
from headstart.trust import SAID


@dataclass
class Comparison:
    """A comparison that ended.

    Attributes:
        folder: Its folder.
        results: What ``results.json`` holds (docs/comparison.md); None after a plan, and where it was interrupted.
        report: ``report.html``; None where none was drawn.
        failed: Cells that failed, in words.
        interrupted: Whether Ctrl-C or a signal of the system ended it; the same call, without ``overwrite``, goes on.
    """

    folder: Path
    results: Results | None = field(repr=False)
    report: Path | None
    failed: tuple[str, ...]
    interrupted: bool

    @property
    def failed_checks(self) -> tuple[Check, ...]:
        """The checks of fairness that failed; trainings that are missing among them."""
        return self.results.failed_checks if self.results else ()

    @property
    def ok(self) -> bool:
        """Whether it came to its end, no training failed and no check did."""
        return not (self.interrupted or self.failed or self.failed_checks)

    @property
    def verdict(self) -> str:
        """The outcome in a sentence."""
        return self.results.verdict if self.results else ""

    @property
    def markdown(self) -> str:
        """The table for a README."""
        return wording.markdown(self.results) if self.results and self.results.scores else ""

    def _repr_html_(self) -> str | None:
        """The card that a notebook shows; None after a plan, and where it was interrupted."""
        from headstart.report.cards import comparison_card

        return comparison_card(self.folder, self.results) if self.results else None


@with_signature("compare")
def compare(**options: Any) -> Comparison:
    """Fine-tune a detector from several starts, at several label budgets, with several seeds, all else equal.

    Called again with the same ``out``, it goes on: trainings that are done are kept, and starts, budgets and seeds
    may be added.

    Args:
        options: As the command takes them; ``headstart compare --help`` lists all. ``data`` is needed.

    Raises:
        UserError: Every problem of the options together; later data that cannot be compared on (test images among
            training or pretraining images, a start of another architecture). A training that fails does not raise:
            see `Comparison.failed`.

    Examples:
        >>> headstart.compare(
        ...     data="my.yaml",
        ...     model="yolo11n",
        ...     starts=["scratch", "coco", "ssl=runs/a"],
        ...     labels=["10%", "100%"],
        ...     seeds=3,
        ...     epochs=50,
        ...     imgsz=640,
        ...     out="runs/compare/my",
        ... ).verdict
    """
    settings = compare_options.resolve(options)
    with ended_by_signals() as by_system, open_launcher(settings) as launcher, open_folder(settings) as folder:
        try:
            found = _compare(settings, folder, launcher)
        except KeyboardInterrupt:
            found = Comparison(folder.path, None, None, (), interrupted=True)
        finally:
            # A system that ends a comparison will start it again; a person, or an error, has changed the plan.
            back = settings.overwrite and not settings.plan and folder.replacing and not by_system.is_set()
            if back:
                folder.put_back()
                say(f"the comparison that was in {folder.path} before is there again, as it was")
    if found.interrupted and not back:
        say(f"\nstopped; what was finished is in {folder.path}. To go on:")
        say(f"  {compare_options.command(settings, folder.path)}")
    return found


def _compare(settings: CompareSettings, folder: OwnedFolder, launcher: Launcher) -> Comparison:
    path = folder.path
    for line in (*untested(), SAID) if settings.trust else untested():
        make_console(stderr=True).print(Text(line))
    loggers = None if settings.plan else _loggers(settings, path)
    prepared = prepare(settings, path)
    launcher.check(prepared.needed)
    if loggers is None:
        _show_plan(prepared, launcher)
        return Comparison(path, None, None, (), interrupted=False)
    running = Running(prepared, launcher, under_way=folder.replaced, log=loggers.tell)
    try:
        content = running.run()
    except Interrupted:
        return Comparison(path, None, None, (), interrupted=True)
    report = _conclude(settings, path, content, running)
    if settings.overwrite and folder.replacing:  # no training came to its end: what was there before comes back
        report = None
    broken = tuple(f"{one.start}, {one.budget}, seed {one.seed}: {one.error}" for one in _failed(content))
    return Comparison(path, content, report, broken, interrupted=False)


def _loggers(settings: CompareSettings, folder: Path) -> CellLoggers:
    asked = settings.model_dump(mode="json", exclude={"loggers", "plan", "overwrite", "out"})
    return CellLoggers(settings.loggers, folder, asked, make_console(stderr=True, soft_wrap=True).print)


def _show_plan(prepared: Any, launcher: Launcher) -> None:
    console = make_console()
    console.print(Text(f"{len(prepared.dataset.pool):,} labelled images, {len(prepared.dataset.test):,} test images"))
    for note in prepared.dataset.notes:
        console.print(Text(note))
    console.print(Text(f"starts: {', '.join(start.name for start in prepared.starts)}; {launcher.why}"))
    console.print(Text("measuring with a short probe ..."))
    crowded = busy()
    plans = []
    if prepared.recipes:
        plans = plan_recipes(prepared, launcher, lengths(prepared.recipes, prepared.settings))
    for plan in plans:
        if plan.why:
            console.print(Text(f"the time of {plan.start} is not known, for a few steps of it failed: {plan.why}"))
    console.print(cost.table(prepared, launcher.places, cost.measure(prepared, launcher), plans))
    shorter = f"; {crowded}, and they are shorter when it is not" if crowded else ""
    console.print(Text(f"Times are estimates{shorter}. Nothing was trained. Leave out plan to run it."))


def _conclude(settings: CompareSettings, folder: Path, content: Results, running: Running) -> Path | None:
    """Table, report, verdict."""
    console = make_console()
    console.print(wording.table(content))
    for check in content.failed_checks:
        running.say(f"FAILED CHECK: {check.claim}: {check.evidence}", style="bold red")
    for one in _failed(content):
        running.say(f"FAILED: {one.folder}: {one.error}", style="bold red")
    for check in content.checks:
        if check.outcome == "not known":
            running.say(f"not known: {check.claim}: {check.evidence}")
    console.print(Text(f"\n{content.verdict}"))
    for remark in wording.remarks(content):
        console.print(Text(f"{remark}."))
    report = None
    if settings.report:
        report = _draw(folder, running)
    running.say(f"table for a README: {folder / 'results.md'}; all figures: {folder / 'results.json'}")
    return report


def _draw(folder: Path, running: Running) -> Path | None:
    """The report; a comparison that is finished stays so where it cannot be drawn."""
    from headstart.report import write_report

    try:
        report = write_report(folder)
    except Exception as error:  # whatever drawing may raise
        again = f"headstart report {shlex.quote(str(folder))} draws it"
        running.say(f"report could not be drawn: {type(error).__name__}: {error}; {again}")
        return None
    running.say(f"report: {report}")
    return report


def _failed(content: Results) -> list[CellResult]:
    return [cell for cell in content.cells if cell.state == "failed"]
