"""The contract of a method, and the EMA teacher that most of them have.

A method is one file in ``methods/`` (or a user's own) with ``class Settings(MethodSettings)``, optionally ``PRESETS``
(name -> option values), and one subclass of `Method`. The training loop calls, each step and in this order:
`before_step`, `forward` with the views, backward, `after_backward`, the optimizer.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from headstart.errors import UserError
from headstart.methods.schedules import Progress
from headstart.pseudolabels.base import Objects
from headstart.settings.schema import PretrainSettings
from headstart.views.spec import View, ViewSpec


class Method(nn.Module, ABC):
    """Student, teacher, heads and loss of one way to pretrain.

    Args:
        settings: The method's own ``Settings``.
        run: The options that every method has (crop sizes among them).
        student: The part of the detector that is trained: called with images float (B, 3, H, W) in [0, 1] it returns
            a list of maps, one a width in `widths`.
        widths: Channels of these maps.

    A method whose ``Settings`` have an option ``teacher`` gets the `Teacher` that it names as a fifth argument. One
    with ``proposals``, and the options of the search that ``methods/objects.py`` has (a ``teacher`` among them, who is
    asked before the first step), gets the detector's `ObjectHead` instead, and through `take_objects` what was found.

    Attributes:
        trains: What is pretrained: ``backbone`` (the student returns its last map) or ``neck`` (backbone and neck; the
            student returns the pyramid that the detection head reads).
    """

    trains: ClassVar[Literal["backbone", "neck"]] = "backbone"

    def __init__(self, settings: Any, run: PretrainSettings, student: nn.Module, widths: Sequence[int]) -> None:
        super().__init__()
        self.settings, self.run, self.widths = settings, run, tuple(widths)
        self.student = student

    @abstractmethod
    def view_specs(self) -> list[ViewSpec]:
        """The views that `forward` gets of every batch, in this order."""

    @abstractmethod
    def forward(self, views: list[View], progress: Progress) -> Tensor:
        """The loss of one step: a scalar, float32 whatever the precision of the network."""

    def before_step(self, progress: Progress) -> None:
        """Called before the forward pass: the place for the teacher's update."""

    def after_backward(self, progress: Progress) -> None:
        """Called between backward and the optimizer: the place to drop gradients."""

    def measures(self) -> dict[str, float]:
        """Measures of the last step for metrics.jsonl; `headstart.run.health.Health` tells which names it judges.

        Called at logged steps only, since reading a number makes the host wait for the device.
        """
        return {}

    def take_objects(self, found: Objects) -> None:
        """Called once before the first step, with what was found on the images, for a method that asks for it."""

    def examples(self, views: list[View], progress: Progress) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
        """What the student sees of `views` in a step, for the report; None where it is the views themselves.

        Returns:
            Images ``(B, 3, S, S)`` and, of the boxes on them, image ``(N,)``, corners in pixels ``(N, 4)``, label
            ``(N,)``.
        """
        return None

    def handed_back(self, which: Literal["student", "teacher"]) -> dict[str, Tensor]:
        """The tensors that go back into the detector, by its own names."""
        state: dict[str, Tensor] = self.exported(which).state_dict()
        return state

    def exported(self, which: Literal["student", "teacher"]) -> nn.Module:
        """The trunk whose weights go back into the detector."""
        if which == "teacher":
            teacher = getattr(self, "teacher", None)
            if teacher is None:
                raise UserError("this method has no teacher", where="export", hint="use export=student")
            return teacher  # type: ignore[no-any-return]
        return self.student


def frozen_copy(module: nn.Module) -> nn.Module:
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
