"""How long trainings and pretrainings take, told by some that were timed; a busy machine is said."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median, median_low
from typing import Any, NamedTuple

from headstart.comparison.grid import Cell
from headstart.detectors.finetuner import FinetuneResult, measured_epochs
from headstart.reading import parse_json, read_json_lines
from headstart.run.folder import RunFolder

_TEST = 0.4
"""What an image costs that is measured on, in images that are trained on, where trainings do not tell them apart."""
WARM = 2
"""Steps of a pretraining after which they are timed."""
_MORE = 3.0
"""A step that takes so many times as long as others does something else besides, such as labelling images."""


@dataclass(frozen=True)
class Speed:
    """Seconds of a training: `start` once, `train` an image and epoch, `test` an image and epoch that is measured."""

    start: float
    train: float
    test: float

    def of(self, cell: Cell, test_images: int) -> float:
        """Seconds of a cell."""
        tested = len(measured_epochs(cell.epochs)) * test_images
        return self.start + cell.epochs * cell.images * self.train + tested * self.test


class Timed(NamedTuple):
    """A training that came to its end: its images to train on and to test on."""

    result: FinetuneResult
    images: int
    tests: int


def speed_of(done: Iterable[Timed]) -> Speed | None:
    """The speed of trainings, from the epochs of those that are done; None without any.

    Epochs that are not measured tell what training costs, the others what testing does; where all are measured, a test
    image is taken to cost `_TEST` of an image that is trained on. A training costs no less for each epoch, and tests
    about 20 times however long it is: of a long one much less of the time is for tests than of a short one.
    """
    done = [one for one in done if one.result.curve[-1].epoch]  # what is measured as it is trains nothing
    if not done:
        return None
    plain, tested = [], []
    for one in done:
        seconds = [point.seconds for point in one.result.curve]
        measured = measured_epochs(len(seconds))
        # The first epoch warms up.
        each = [(at in measured, after - before) for at, (before, after) in enumerate(pairwise(seconds), start=2)]
        each = each or [(True, seconds[0])]
        plain += [_middle(one, [took for tests, took in each if not tests])]
        tested += [_middle(one, [took for tests, took in each if tests])]
    start = median(max(0.0, one.result.seconds - one.result.curve[-1].seconds) for one in done)
    trains = [took / one.images for one, took in filter(None, plain)]
    if not trains:
        trains = [took / (one.images + _TEST * one.tests) for one, took in filter(None, tested)]
    train = median(trains)
    tests = [max(0.0, took - one.images * train) / max(1, one.tests) for one, took in filter(None, tested)]
    return Speed(start, train, median(tests) if tests else _TEST * train)


def _middle(one: Timed, took: Sequence[float]) -> tuple[Timed, float] | None:
    return (one, median(took)) if took else None


def time_left(done: Sequence[float], left: Sequence[float], places: int, elapsed: float) -> float:
    """Seconds until all trainings are done.

    Args:
        done: Seconds of each that is done.
        left: Those of each other, as expected, in the order in which they are begun.
        places: How many run side by side.
        elapsed: Seconds since the first was begun.
    """
    running, waiting = left[:places], left[places:]
    shared = (sum(done) + sum(left)) / places - elapsed
    return max(shared, *(each - elapsed for each in running), *waiting, 0.05 * sum(left))


class Pace(NamedTuple):
    """How fast a recipe is.

    Attributes:
        step: Seconds of a step.
        search: Seconds of the search before the first step, for each image.
        shown: Images that the network is shown in a step.
        batch: Images of a step.
        once: Seconds of what steps did besides, as labelling images.
        look: Seconds of that for each image that was looked at.
        looked: Images without labels that were.
    """

    step: float
    search: float
    shown: int
    batch: int
    once: float = 0.0
    look: float = 0.0
    looked: int = 0

    def seconds(self, steps: int, images: int) -> float:
        """Of a run of so many steps on so many images."""
        more = max(0, min(images, steps * self.batch) - self.looked)
        return steps * self.step + self.search * images + self.once + self.look * more


def pace_of(run: Path, images: int) -> Pace:
    """The pace of a short run that was logged at each step.

    A step that labels images as well stands out, and is not taken for what every step costs.

    Args:
        run: Its folder.
        images: That it learnt from.
    """
    settings = RunFolder.open(run).read_settings()
    resolved = settings["resolved"]
    ends = {int(line["step"]): float(line["seconds"]) for line in read_json_lines(run / "metrics.jsonl")}
    took = {step: end - ends[step - 1] for step, end in ends.items() if step - 1 in ends}
    usual = median_low([seconds for step, seconds in took.items() if step > WARM])
    once = sum(seconds - usual for seconds in took.values() if seconds > _MORE * usual)
    new, all_of_them = _looked_at(run, named=bool(settings["options"].get("teacher")))
    look = once / all_of_them if all_of_them else 0.0
    batch = int(settings["options"]["batch"])
    return Pace(usual, resolved["search_seconds"] / images, resolved["shown"], batch, once, look, new)


def _looked_at(run: Path, *, named: bool) -> tuple[int, int]:
    """Images without labels that a teacher has labelled, and all that were looked at for it.

    Args:
        run: The run folder.
        named: Whether another network names what is found, which it learns from the labelled images.
    """
    try:
        told: Any = parse_json((run / "teacher.json").read_text(encoding="utf-8"))
        passes = [int(one["images"]) for one in told["passes"]]
        known = int(told["labelled"] if named else told["held_out"])
    except (OSError, ValueError, KeyError, TypeError):  # no teacher has labelled anything
        return 0, 0
    return sum(passes), sum(passes) + known * len(passes)
