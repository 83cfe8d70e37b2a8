"""An anchor for a run that starts from trained weights: features may not move far from where they started.

For any method, a user's own too: the anchor wraps it. It sees what the student is first fed in each step and what it
makes of it, feeds the same to a frozen copy of the student as it began, and adds the distance to the method's loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.images.stream import Stream
from headstart.methods.base import Export, Method, Needs, frozen_copy
from headstart.methods.schedules import Progress
from headstart.pseudolabels.labelling import Labelling
from headstart.views.spec import View, ViewSpec


class Anchored(Method):
    """A method with the anchor's term in its loss.

    Batch normalization: the frozen copy stays in training mode as the student does, so that both normalize by the same
    batch; at the first step the distance is exactly 0. What of the detector is held: the maps that the student returns,
    which are the pyramid for methods that train the neck and the backbone's last map for the others.

    Args:
        inner: The method.
        weight: Of the distance, beside the method's own loss.
    """

    def __init__(self, inner: Method, weight: float) -> None:
        nn.Module.__init__(self)
        self.inner, self.weight = inner, weight
        self.origin = frozen_copy(inner.student)
        self._first: tuple[Tensor, Sequence[Tensor]] | None = None
        self._drift = torch.zeros(())
        inner.student.register_forward_hook(self._remember)

    def _remember(self, student: nn.Module, given: tuple[Tensor, ...], maps: Sequence[Tensor]) -> None:
        if self._first is None and torch.is_grad_enabled():
            self._first = (given[0], maps)

    def forward(self, views: list[View], progress: Progress) -> Tensor:
        """The method's loss and the weighted distance."""
        self._first = None
        loss: Tensor = self.inner(views, progress)
        assert self._first is not None, "the method does not call its student"
        images, maps = self._first
        self._first = None
        with torch.no_grad():
            before = self.origin(images)
        with torch.autocast(images.device.type, enabled=False):
            drift = distance(maps, before)
            self._drift = drift.detach()
            return loss + self.weight * drift

    @property
    def needs(self) -> Needs:  # type: ignore[override]
        """As the method."""
        return self.inner.needs

    @property
    def exports(self) -> tuple[Export, ...]:  # type: ignore[override]
        """As the method."""
        return self.inner.exports

    def __getattr__(self, name: str) -> Any:
        """Student, teacher, widths, ...: as the method has them."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "inner":
                raise
            return getattr(self.inner, name)

    def view_specs(self) -> list[ViewSpec]:
        """As the method."""
        return self.inner.view_specs()

    def specs_at(self, progress: Progress) -> list[ViewSpec]:
        """Those of the method."""
        return self.inner.specs_at(progress)

    def phases(self, steps: int) -> list[range]:
        """As the method."""
        return self.inner.phases(steps)

    def order(self, steps: int) -> Stream | None:
        """As the method."""
        return self.inner.order(steps)

    def reordered(self) -> bool:
        """As the method."""
        return self.inner.reordered()

    def long_ahead(self, progress: Progress) -> bool:
        """As the method."""
        return self.inner.long_ahead(progress)

    def cycle(self, progress: Progress) -> Progress:
        """As the method."""
        return self.inner.cycle(progress)

    def rate_share(self, progress: Progress) -> float:
        """As the method."""
        return self.inner.rate_share(progress)

    def shown(self, batch: int) -> int:
        """As the method."""
        return self.inner.shown(batch)

    def before_step(self, progress: Progress) -> None:
        """As the method."""
        self.inner.before_step(progress)

    def after_backward(self, progress: Progress) -> None:
        """As the method."""
        self.inner.after_backward(progress)

    def finish(self, steps: int) -> None:
        """As the method."""
        self.inner.finish(steps)

    def news(self) -> list[tuple[Literal["info", "alarm"], str]]:
        """As the method."""
        return self.inner.news()

    def label(self, rows: Sequence[int], which: Export) -> Labelling | None:
        """As the method."""
        return self.inner.label(rows, which)

    def teacher_record(self) -> dict[str, Any]:
        """As the method."""
        return self.inner.teacher_record()

    def measures(self) -> dict[str, float]:
        """The method's, and the distance from the start: 0 the same features, 1 unrelated ones."""
        return {**self.inner.measures(), "anchor_drift": float(self._drift)}

    def examples(self, views: list[View], progress: Progress) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
        """As the method."""
        return self.inner.examples(views, progress)

    def handed_back(self, which: Export) -> dict[str, Tensor]:
        """As the method."""
        return self.inner.handed_back(which)


def distance(maps: Sequence[Tensor], before: Sequence[Tensor]) -> Tensor:
    """One minus cosine between the features of each cell, averaged over the cells of a map and over the maps.

    Args:
        maps: ``(B, C, h, w)`` each.
        before: The same shapes; no gradient reaches them.
    """
    each = [
        1 - functional.cosine_similarity(now.float(), then.detach().float(), dim=1).mean()
        for now, then in zip(maps, before, strict=True)
    ]
    return torch.stack(each).mean()
