"""Pseudo-labels: boxes that nobody drew and labels that nobody gave, image after image; who finds and who learns them.

The contracts of the three parts: a `ProposalSource` finds boxes, `PseudoLabels` holds them with a label for each, and a
`PseudoLabelHead` is trained on them. Where the labels come from is another matter: clusters of what looks alike
(`headstart.pseudolabels.cluster`), or the classes of a user.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from pathlib import Path
from pickle import UnpicklingError
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from headstart.errors import UserError
from headstart.files import check_seal, seal, write_atomically

MARGIN = 1.4
"""Side of the square around an object from which its features are taken, in longer sides of its box."""


class ProposalSource(Protocol):
    """Finds boxes on images that have no labels; a trained detector is one."""

    @property
    def name(self) -> str:
        """For messages."""

    def propose(self, images: Tensor) -> Tensor:
        """Boxes that may hold an object of any class, best first.

        Args:
            images: float ``(B, 3, H, W)``, RGB in [0, 1].

        Returns:
            float32 ``(B, N, 5)``: x0, y0, x1, y1 in pixels, score; many of them overlap.
        """


@dataclass(frozen=True)
class PseudoLabels:
    """Boxes with labels, image after image.

    Attributes:
        boxes: float32 ``(M, 4)``: x0, y0, x1, y1 as shares of the image's width and height.
        labels: int64 ``(M,)``: boxes of one label show the same kind of thing, as far as the source can tell; -1 where
            the source is not sure that there is anything.
        scores: float32 ``(M,)``: of the detector that found them.
        first: int64 ``(images + 1,)``: the boxes of the image at row r of the index are first[r] to first[r + 1] - 1.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    first: Tensor

    @classmethod
    def gather(cls, images: int, rows: Tensor, boxes: Tensor, scores: Tensor, labels: Tensor) -> PseudoLabels:
        """Put boxes in the order of the index.

        Args:
            images: Number of images in the index.
            rows: int64 ``(M,)``, the row of each box's image.
            boxes, scores, labels: As the attributes, in the order of `rows`.
        """
        order = rows.argsort(stable=True)
        first = torch.zeros(images + 1, dtype=torch.int64)
        first[1:] = torch.bincount(rows, minlength=images).cumsum(0)
        return cls(boxes[order].float(), labels[order], scores[order].float(), first)

    def of(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The boxes of a batch of images.

        Args:
            rows: int64 ``(B,)`` on the CPU.

        Returns:
            owner int64 ``(N,)``, the place in the batch; boxes ``(N, 4)``; labels ``(N,)``.
        """
        owner, taken = self.places(rows)
        return owner, self.boxes[taken], self.labels[taken]

    def select(self, rows: Tensor) -> PseudoLabels:
        """Those of some images alone, for an index cut to these `rows`, int64 ``(n,)`` and rising."""
        owner, taken = self.places(rows)
        return self.gather(len(rows), owner, self.boxes[taken], self.scores[taken], self.labels[taken])

    def places(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """For every box of some images the place of its image among them, and its own place in `boxes`."""
        number = self.first[rows + 1] - self.first[rows]
        owner = torch.repeat_interleave(torch.arange(len(rows)), number)
        place = torch.arange(len(owner)) - torch.repeat_interleave(number.cumsum(0) - number, number)
        return owner, self.first[rows][owner] + place

    def tensors(self) -> dict[str, Tensor]:
        """Its attributes by name, as the class takes them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def save(self, path: Path, rows: Tensor | None = None, seconds: float = 0.0) -> None:
        """Write the file of a run folder.

        Args:
            path: Where to.
            rows: Of the whole index, where the run uses these images alone.
            seconds: That the search took.
        """

        def write(temporary: Path) -> None:
            torch.save({**self.tensors(), "rows": rows, "seconds": seconds}, temporary)
            seal(temporary)

        write_atomically(path, write)

    @classmethod
    def load(cls, path: Path) -> Stored:
        """Read it back, with what was stored beside it.

        Raises:
            UserError: It is not there or damaged.
        """
        try:
            check_seal(path)
            content = torch.load(path, weights_only=True)
            rows, seconds = content.pop("rows"), float(content.pop("seconds", 0.0))  # older files have no time
            return Stored(cls(**content), rows, seconds)
        except (OSError, ValueError, RuntimeError, TypeError, KeyError, EOFError, UnpicklingError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            hint = "start the run again with overwrite=true"
            raise UserError(
                f"the pseudo-labels of this run cannot be read: {reason}", where=str(path), hint=hint
            ) from error


class Stored(NamedTuple):
    """What the file of a run folder holds.

    Attributes:
        labels: The pseudo-labels.
        rows: Of the whole index, where the run uses these images alone; else None.
        seconds: That the search took.
    """

    labels: PseudoLabels
    rows: Tensor | None
    seconds: float


class DetectionHead(nn.Module, ABC):
    """What finds objects on the maps of a network."""

    @abstractmethod
    def detections(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """What the head finds, before overlapping boxes are joined; without gradients.

        Args:
            maps: The pyramid, ``(B, C, h, w)`` each.

        Returns:
            Boxes float32 ``(B, A, 4)``, x0, y0, x1, y1 in pixels, and the scores of their labels ``(B, A, L)`` in
            [0, 1].
        """


class PseudoLabelHead(DetectionHead):
    """A detector's head with an output for each label, and the loss that its family trains with.

    It shares its layers with the detector; where labels are not the detector's classes, the last ones of the class
    branches are its own.
    """

    @abstractmethod
    def forward(self, maps: list[Tensor], owner: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
        """The weighted parts of the loss, float32 ``(3,)``: boxes, classes, distribution of the box's sides.

        Args:
            maps: The pyramid, ``(B, C, h, w)`` each.
            owner: int64 ``(N,)``: the image of each box.
            boxes: float ``(N, 4)``: x0, y0, x1, y1 as shares of the image's sides.
            labels: int64 ``(N,)``; -1 for a box in which nothing is taught: neither that there is an object nor that
                there is none.
        """

    def advance(self, share: float) -> None:
        """Say how far the training is, from 0 to 1, to a loss that changes on the way."""

    @abstractmethod
    def handed_back(self) -> dict[str, Tensor]:
        """The tensors that go back into the detector, by its own names."""


def rank_of(owner: Tensor) -> Tensor:
    """int64 ``(N,)``: how many of the same owner, int64 ``(N,)`` in which owners stand together, come before."""
    number = torch.unique_consecutive(owner, return_counts=True)[1]
    before: Tensor = (number.cumsum(0) - number).repeat_interleave(number)
    return torch.arange(len(owner), device=owner.device) - before
