"""Objects that were found on images without labels: boxes, and which of them look alike.

Boxes that look alike get the same number, as in DeepCluster (Caron et al., "Deep Clustering for Unsupervised Learning
of Visual Features", 2018, arXiv 1807.05520): principal components of their features, whitened, at length 1; k-means.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn

from headstart.errors import UserError
from headstart.files import write_atomically

MARGIN = 1.4
"""Side of the square around an object that is looked at to tell its kind, in longer sides of its box."""


@dataclass(frozen=True)
class Objects:
    """What was found, image after image.

    Attributes:
        boxes: float32 ``(M, 4)``: x0, y0, x1, y1 as shares of the image's width and height.
        clusters: int64 ``(M,)``: boxes of one number look alike.
        scores: float32 ``(M,)``: of the detector that found them.
        first: int64 ``(images + 1,)``: the objects of the image at row r of the index are first[r] to first[r + 1] - 1.
    """

    boxes: Tensor
    clusters: Tensor
    scores: Tensor
    first: Tensor

    @classmethod
    def gather(cls, images: int, rows: Tensor, boxes: Tensor, scores: Tensor, clusters: Tensor) -> Objects:
        """Put objects in the order of the index.

        Args:
            images: Number of images in the index.
            rows: int64 ``(M,)``, the row of each object's image.
            boxes, scores, clusters: As the attributes, in the order of `rows`.
        """
        order = rows.argsort(stable=True)
        first = torch.zeros(images + 1, dtype=torch.int64)
        first[1:] = torch.bincount(rows, minlength=images).cumsum(0)
        return cls(boxes[order].float(), clusters[order], scores[order].float(), first)

    def of(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The objects of a batch of images.

        Args:
            rows: int64 ``(B,)`` on the CPU.

        Returns:
            owner int64 ``(N,)``, the place in the batch; boxes ``(N, 4)``; clusters ``(N,)``.
        """
        number = self.first[rows + 1] - self.first[rows]
        owner = torch.repeat_interleave(torch.arange(len(rows)), number)
        place = torch.arange(len(owner)) - torch.repeat_interleave(number.cumsum(0) - number, number)
        taken = self.first[rows][owner] + place
        return owner, self.boxes[taken], self.clusters[taken]

    def save(self, path: Path) -> None:
        """Write the file of a run folder."""
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        write_atomically(path, lambda temporary: torch.save(content, temporary))

    @classmethod
    def load(cls, path: Path) -> Objects:
        """Read it back.

        Raises:
            UserError: It is not there or damaged.
        """
        try:
            return cls(**torch.load(path, weights_only=True))
        except (OSError, RuntimeError, TypeError, EOFError, UnpicklingError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            hint = "start the run again with overwrite=true"
            raise UserError(f"the objects of this run cannot be read: {reason}", where=str(path), hint=hint) from error


class ObjectHead(nn.Module, ABC):
    """A detector's head with a class for each cluster of objects, and the loss that its family trains with.

    It shares its layers with the detector, all but the last ones of the class branches.
    """

    @abstractmethod
    def forward(self, maps: list[Tensor], owner: Tensor, boxes: Tensor, clusters: Tensor) -> Tensor:
        """The weighted parts of the loss, float32 ``(3,)``: boxes, classes, distribution of the box's sides.

        Args:
            maps: The pyramid, ``(B, C, h, w)`` each.
            owner: int64 ``(N,)``: the image of each object.
            boxes: float ``(N, 4)``: x0, y0, x1, y1 as shares of the image's sides.
            clusters: int64 ``(N,)``.
        """

    @abstractmethod
    def handed_back(self) -> dict[str, Tensor]:
        """The tensors that go back into the detector, by its own names."""
