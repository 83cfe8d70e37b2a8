"""Every method on a batch split over two processes against the same on the joined batch in one.

Loss, gradients and state, step after step. Processes average their gradients, as data-parallel training does, and batch
norm is synchronized. What differs is the order in which float32 numbers are summed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor

import processes
from headstart import ranks
from headstart.images.stream import Stream
from headstart.methods.anchor import Anchored
from headstart.methods.base import Method
from headstart.methods.schedules import Progress
from headstart.methods.selftrain import Selftrain
from headstart.pseudolabels import labeller, looks
from headstart.pseudolabels.base import PseudoLabels
from headstart.pseudolabels.taught import Taught
from headstart.training.norm import synchronized
from headstart.views.render import make_views
from headstart.views.spec import View
from processes import in_processes

STEPS = 4
PASSES = {"burn_in": 0.25, "rounds": 2, "settle": 0.0, "max_objects": 4}
"""Labelled images in the first of four steps; the teacher labels before the second and before the third."""
CASES: list[tuple[Any, ...]] = [
    *(case for case in tiny.cases() if case[0] != "selftrain"),
    ("dino", "default", {"merge_views": True, "guard": True, "freeze_last_layer": 0}),
    ("densecl", None, {"queue": 12}),  # it wraps around
    ("pyramid", "contrast", {"variance_over": "batch", "read_at": "all"}),
    ("objects", "default", {"mosaic": 0.0}),
    ("selftrain", "default", {**PASSES, "keep": "class", "balance": 1.0, "mixup": 1.0, "teacher": None}),
    ("selftrain", "default", {**PASSES, "mosaic": 0.0, "teacher": None}),
    ("selftrain", "default", {**PASSES, "max_objects": 2, "keep": 0.05}),  # a network names what is found
    ("pyramid", None, {"anchor": 3.0}),
]

SPARSE = [("objects", "default", {"mosaic": 0.0}), ("selftrain", "default", {"mosaic": 0.0, "teacher": None})]
Found = dict[str, Tensor]


def named(case: tuple[Any, ...]) -> str:
    return "-".join(str(one) for one in [*case[:2], *(case[2] if len(case) > 2 else {})])


def build(case: tuple[Any, ...]) -> Method:
    name, preset, options = (*case, {})[:3]
    weight = options.get("anchor")
    small = {"imgsz": 64, "local_imgsz": 32}
    method = tiny.build(name, preset, **small, **{key: value for key, value in options.items() if key != "anchor"})
    return (Anchored(method, weight) if weight else method).double()


def views_of(method: Method, progress: Progress) -> list[View]:
    """This process's rows of the views of the joined batch."""
    stream = method.order(progress.steps) or Stream(tiny.IMAGES, tiny.BATCH, 0)
    stream.rank, stream.world = ranks.rank(), ranks.world()
    rows = torch.tensor([row for share in ranks.of_all(stream.rows(progress.step)) for row in share])
    sizes, random = torch.tensor([(128, 128)] * len(rows)), torch.Generator().manual_seed(progress.step)
    views = make_views(tiny.scenes()[rows], sizes, method.specs_at(progress), random, rows)
    names = ("images", "boxes", "flipped", "sizes", "rows")
    return [replace(view, **{name: ranks.own(getattr(view, name)) for name in names}) for view in views]


def run(method: Method, steps: int) -> Found:
    """Loss and gradients of each step, and the state after it, of all processes together."""
    with synchronized(method, torch.device("cpu")):
        return _run(method, steps)


def _run(method: Method, steps: int) -> Found:
    optimizer = torch.optim.SGD((one for one in method.parameters() if one.requires_grad), lr=0.05, momentum=0.9)
    found: Found = {}
    for step in range(steps):
        progress = Progress(step, STEPS, step * tiny.BATCH / tiny.IMAGES)
        torch.manual_seed(step + 1000 * ranks.rank())  # what is drawn from torch's own generator
        method.before_step(progress)
        loss = method(views_of(method, progress), progress)
        loss.backward()
        for one in method.parameters():
            if one.grad is not None:
                one.grad = ranks.mean(one.grad)
        method.after_backward(progress)
        found[f"{step}.loss"] = ranks.mean(loss.detach())
        found |= {f"{step}.grad.{name}": one.grad for name, one in method.named_parameters() if one.grad is not None}
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        found |= tensors(method.state_dict(), f"{step}.state")
        method.measures()
    return found


def tensors(value: Any, name: str) -> Found:
    """All tensors and numbers of a state, by their places in it."""
    if isinstance(value, Tensor):
        return {name: value.detach().clone()}
    if isinstance(value, (bool, int, float)):
        return {name: torch.tensor(float(value))}
    if isinstance(value, dict):
        value = value.items()
    elif isinstance(value, (list, tuple)):
        value = enumerate(value)
    else:
        return {}
    return {key: one for place, part in value for key, one in tensors(part, f"{name}.{place}").items()}


def same(found: Found, expected: Found) -> None:
    """Within what another order of summation does, as a share of the largest gradient or number of a tensor."""
    assert list(found) == list(expected)
    wrong = []
    for name, one in expected.items():
        of = (
            [name]
            if ".grad." not in name
            else [key for key in expected if key.startswith(name.split("grad.")[0] + "grad.")]
        )
        scale = max(
            [1e-9, *(float(expected[key].double().abs().max()) for key in of if len(expected[key].shape or [1]))]
        )
        gap = float((found[name].double() - one.double()).abs().max()) if one.numel() else 0.0
        wrong += [f"{name}: {gap / scale:.1e}"] if gap > TOLERANCE * scale else []
    assert not wrong, "\n".join(wrong[:8])


TOLERANCE = 1e-9


@pytest.fixture(autouse=True)
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All of it in float64, where the order of summation hardly shows: what is left would be another loss."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(autouse=True)
def both_label(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are too few images for whole batches of as many as otherwise; and boxes are looked at from afar."""
    monkeypatch.setattr(labeller, "TOGETHER", tiny.BATCH)
    monkeypatch.setattr(looks, "SIDE", 32)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with other work both processes may take a while."""
    monkeypatch.setattr(processes, "SECONDS", 240.0)


@pytest.mark.parametrize("case", CASES, ids=named)
def test_two_processes_are_one_on_the_joined_batch(case: tuple[Any, ...], tmp_path: Path) -> None:
    steps = 3 if case[0] == "selftrain" else 2
    method, joined = build(case), build(case)
    first, second = in_processes(2, lambda _: run(method, steps), tmp_path)
    same(first, run(joined, steps))
    same(second, first)
    if case[0] == "selftrain":
        assert [one["labels"] > 0 for one in joined.teacher_record()["passes"]] == [True, True]


@pytest.mark.parametrize("case", SPARSE, ids=named)
def test_objects_in_one_process_alone(case: tuple[Any, ...], tmp_path: Path) -> None:
    """What divides the loss is what there is in all: not 1 in the process that has nothing."""
    method, joined = build(case), build(case)
    for one in (method, joined):
        only_labelled(one, views_of(one, Progress(0, STEPS, 0.0))[0].rows[:1])

    def work(_: int) -> tuple[Found, float]:
        found = run(method, 1)
        return found, method.measures()["objects_per_image"]

    (first, some), (second, none) = in_processes(2, work, tmp_path)
    assert some > none == 0
    same(first, run(joined, 1))
    same(second, first)


def only_labelled(method: Any, rows: Tensor) -> None:
    """Take the labels of all other images away: they are background."""
    owner, boxes, labels = tiny.found().of(rows)
    left = PseudoLabels.gather(tiny.IMAGES, rows[owner], boxes, torch.ones(len(owner)), labels)
    if isinstance(method, Selftrain):
        method._taught = Taught(left, torch.ones(tiny.IMAGES, dtype=torch.bool))
    else:
        method._found = left
