"""The contract of a method, and the EMA teacher that most of them have.

A method is one file in ``methods/``, a user's own, or one that an installed package names as an entry point of the
group ``headstart.methods``. It has ``class Settings(MethodSettings)``, optionally ``PRESETS`` (name -> option values),
and one subclass of `Method`, which says in `Method.needs` what it needs and gets it in a `Context`. The training loop
calls, each step and in this order: `before_step`, `forward` with the views, backward, `after_backward`, the optimizer.

On several devices each process calls them with its part of the batch, all parts as large, and gradients are averaged.
What a loss compares, counts or averages over the batch in another way than by a mean over images it takes from all
processes (`headstart.ranks`), in `before_step` and `forward` alone: the rest may be called in the first process only.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor, nn

from headstart.images.loader import PixelBatch
from headstart.images.stream import Stream
from headstart.methods.schedules import Progress
from headstart.pseudolabels.base import PseudoLabelHead, PseudoLabels
from headstart.pseudolabels.finder import Finder
from headstart.pseudolabels.labelling import Labelling
from headstart.teachers.base import Teacher
from headstart.views.spec import View, ViewSpec

Trained = Literal["backbone", "neck", "all"]
Export = Literal["student", "teacher"]
AnyModule = TypeVar("AnyModule", bound=nn.Module)


@dataclass(frozen=True)
class Needs:
    """What a method needs; declared in its class, given in its `Context`.

    Attributes:
        trains: What of the detector is trained: ``backbone`` (the student returns its last map), ``neck`` (backbone and
            neck: the student returns the pyramid that the head reads) or ``all`` (the head too: `Context.head`).
        teacher: A trained network to learn from while it trains, where one is given; its ``Settings`` are
            `TeacherOptions`.
        pseudolabels: Boxes and labels of the images, found before the first step; its ``Settings`` are
            `ProposalOptions`.
        labels: Labels that the user gives for some of the images; its ``Settings`` are `LabelOptions`. The head then
            has the user's classes, and is handed back with them.
    """

    trains: Trained = "backbone"
    teacher: bool = False
    pseudolabels: bool = False
    labels: bool = False


@dataclass(frozen=True)
class GivenLabels:
    """Labels that the user gives.

    Attributes:
        names: Of the classes, by index.
        rows: int64 ``(L,)``, rising: the labelled images in the run's index; one without objects is background.
        labels: Boxes and classes, for all rows of the index.
        beyond: What lines of the user hold beyond boxes, ``polygons`` or ``keypoints``; "" where boxes are all.
    """

    names: tuple[str, ...]
    rows: Tensor
    labels: PseudoLabels
    beyond: str = ""

    def __len__(self) -> int:
        """Images in the index."""
        return len(self.labels.first) - 1


@dataclass(frozen=True)
class Context:
    """What a method gets.

    Attributes:
        student: The part of the detector that is trained: called with images float (B, 3, H, W) in [0, 1] it returns a
            list of maps, one a width in `widths`, the finest first.
        widths: Channels of these maps.
        imgsz: Side of the global crops, pixels.
        local_imgsz: Side of the local crops, pixels.
        batch: Images a step, in all processes together.
        seed: Of the run.
        teacher: Where it needs one, and one is given.
        pseudolabels: Where it needs them: those of the run's images, by their place in the index.
        head: Where all is trained: the detector's own, with an output for each pseudo-label, or for each class of the
            labels that the user gives.
        given: Labels that the user gives, where it needs them.
        from_scratch: Whether the student starts from random weights, or from what headstart made of them.
        finder: Where labels are given: a trained detector that labels images the first time, if one is given.
        read: Where labels are given: brings the images at some rows of the index, each once, batch after batch, scaled
            down to so many pixels at most.
        export: Whose weights are handed back in the end.
    """

    student: nn.Module
    widths: tuple[int, ...]
    imgsz: int = 224
    local_imgsz: int = 96
    batch: int = 64
    seed: int = 0
    teacher: Teacher | None = None
    pseudolabels: PseudoLabels | None = None
    head: PseudoLabelHead | None = None
    given: GivenLabels | None = None
    from_scratch: bool = False
    finder: Finder | None = None
    read: Callable[[Sequence[int], int], Iterable[PixelBatch]] | None = None
    export: Export = "student"

    @property
    def names(self) -> tuple[str, ...]:
        """Of the user's classes."""
        return self.given.names if self.given else ()


class Method(nn.Module, ABC):
    """Student, teacher, heads and loss of one way to pretrain.

    Args:
        settings: The method's own ``Settings``.
        context: What it works with; see `needs`.

    Attributes:
        needs: What the method needs beside the student.
        exports: Whose weights it can hand back: ``("student", "teacher")`` where an attribute ``teacher`` is a moving
            average of the student.
        namer: The network that ``teacher=auto`` is, where it can be had; "" where that is no value of the option.
        with_teacher: What a run says that takes it.
        without_teacher: What a run says that could learn from a ``teacher`` and has none.
    """

    needs: ClassVar[Needs] = Needs()
    exports: ClassVar[tuple[Export, ...]] = ("student",)
    namer: ClassVar[str] = ""
    with_teacher: ClassVar[str] = ""
    without_teacher: ClassVar[str] = ""

    def __init__(self, settings: Any, context: Context) -> None:
        super().__init__()
        self.settings, self.context, self.widths = settings, context, context.widths
        self.student = context.student

    @abstractmethod
    def view_specs(self) -> list[ViewSpec]:
        """The views that `forward` gets of every batch, in this order; where steps differ, the largest of each."""

    def specs_at(self, progress: Progress) -> list[ViewSpec]:
        """The views of one step, none larger than in `view_specs`."""
        return self.view_specs()

    def phases(self, steps: int) -> list[range]:
        """The parts of a training of so many steps whose steps take different times, in their order; mostly one.

        What a step takes is measured in each, at steps after its first.
        """
        return [range(steps)]

    @abstractmethod
    def forward(self, views: list[View], progress: Progress) -> Tensor:
        """The loss of one step: a scalar, float32 whatever the precision of the network."""

    def order(self, steps: int) -> Stream | None:
        """The order in which a run of so many steps sees the images; None for all of them, one epoch after the other.

        A pure function of what the method was made with, `steps` and the method's state; see `reordered`.
        """
        return None

    def reordered(self) -> bool:
        """Whether the order that `order` gave last has changed, in place, since this was last asked.

        From the next step on the images come as it then says. What was loaded ahead is loaded anew.
        """
        return False

    def long_ahead(self, progress: Progress) -> bool:
        """Whether `before_step` will take long before this step: what was trained is saved first."""
        return False

    def cycle(self, progress: Progress) -> Progress:
        """The part of the training over which the learning rate rises and falls once: all of it, unless a method says.

        Returns:
            Where this step stands in its part: steps done since it began, and its length.
        """
        return progress

    def rate_share(self, progress: Progress) -> float:
        """Highest learning rate of a step's cycle as a share of ``lr``: all of it, unless a method says."""
        return 1.0

    def shown(self, batch: int) -> int:
        """How many images the network is shown in a step of `batch` images: fewer where several are put into one."""
        return batch

    def before_step(self, progress: Progress) -> None:
        """Called before the forward pass: the place for the teacher's update."""

    def after_backward(self, progress: Progress) -> None:
        """Called between backward and the optimizer: the place to drop gradients."""

    def finish(self, steps: int) -> None:
        """Called once after the last of so many steps, before it is saved."""

    def news(self) -> list[tuple[Literal["info", "alarm"], str]]:
        """What has happened since it was last asked, in sentences, each with its kind."""
        return []

    def label(self, rows: Sequence[int], which: Export) -> Labelling | None:
        """What the detector that is handed back labels on the images at these rows; None where it knows no classes.

        Called after the last step.
        """
        return None

    def teacher_record(self) -> dict[str, Any]:
        """What a teacher has labelled so far, for ``teacher.json``; empty where none labels anything.

        Returns:
            ``names`` of the classes, `headstart.images.class_names.told_apart`; the scores ``keep``, from which a
            box is an object (``class``: one for each class, which each pass has), and ``unsure``, below which it is
            background; numbers of ``labelled``, ``unlabelled`` and ``held_out`` images; ``passes``, each with ``step``,
            `headstart.pseudolabels.labelling.Labelling.counts` and, where labels are held out, ``precision``,
            ``recall``, ``f1`` (each None where there is nothing to divide by) and ``by_class`` (known, given, right);
            ``drifted``, a sentence where it has.
        """
        return {}

    def measures(self) -> dict[str, float]:
        """Measures of the last step for metrics.jsonl; `headstart.run.health.Health` tells which names it judges.

        Called at logged steps only, since reading a number makes the host wait for the device.
        """
        return {}

    def examples(self, views: list[View], progress: Progress) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
        """What the student sees of `views` in a step, for the report; None where it is the views themselves.

        Returns:
            Images ``(B, 3, S, S)`` and, of the boxes on them, image ``(N,)``, corners in pixels ``(N, 4)``, label
            ``(N,)``.
        """
        return None

    def handed_back(self, which: Export) -> dict[str, Tensor]:
        """The tensors that go back into the detector, by its own names; `which` is one of `exports`."""
        trunk: nn.Module = self.student if which == "student" else self.get_submodule("teacher")
        state: dict[str, Tensor] = trunk.state_dict()
        return state


def frozen_copy(module: AnyModule) -> AnyModule:
    """A copy of `module` with weights of its own that no gradient reaches, for a teacher."""
    twin = copy.deepcopy(module)
    return twin.requires_grad_(False)


def pooled(maps: Sequence[Tensor]) -> Tensor:
    """The last map, averaged over its cells: ``(B, C)``."""
    return maps[-1].mean(dim=(2, 3))


@torch.no_grad()
def update_ema(pairs: Iterable[tuple[nn.Module, nn.Module]], momentum: float) -> None:
    """``teacher = momentum * teacher + (1 - momentum) * student``, for every parameter of all (student, teacher) pairs.

    Parameters only: buffers (batch-norm statistics) are left to the teacher's own forward passes.
    The same arithmetic as ``lightly.models.utils.update_momentum``.
    """
    student: list[Tensor] = []
    teacher: list[Tensor] = []
    for source, target in pairs:
        student += source.parameters()
        teacher += target.parameters()
    torch._foreach_mul_(teacher, momentum)
    torch._foreach_add_(teacher, student, alpha=1.0 - momentum)


def by_size(compute: Callable[[Tensor], Tensor], views: Sequence[Tensor]) -> list[Tensor]:
    """`compute` once for all views of one size, given as one batch; its results, view by view.

    Args:
        compute: Takes (N, 3, S, S) and returns (N, ...).
        views: Each (B, 3, S, S), sizes S in any order.
    """
    results: dict[int, Tensor] = {}
    for size in dict.fromkeys(view.shape[-1] for view in views):
        places = [place for place, view in enumerate(views) if view.shape[-1] == size]
        together = compute(torch.cat([views[place] for place in places]))
        results.update(zip(places, torch.split(together, len(views[places[0]])), strict=True))
    return [results[place] for place in range(len(views))]
