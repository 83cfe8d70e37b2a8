"""What is taught of each image: the labels that the user gave, those of a teacher, or nothing where nobody looked."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from headstart.pseudolabels.base import PseudoLabels
from headstart.pseudolabels.labelling import Detections, replaced


@dataclass(frozen=True)
class Taught:
    """Labels of all images of the index.

    Attributes:
        labels: Boxes and classes; -1 where the place is left open.
        known: bool ``(images,)``: what of an image has no box is background; of others nothing is known.
    """

    labels: PseudoLabels
    known: Tensor

    def of(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Owner, box and class of what is taught of these images; of what is not known the whole is left open.

        Args:
            rows: int64 ``(B,)`` on the CPU.

        Returns:
            As `PseudoLabels.of`.
        """
        owner, boxes, labels = self.labels.of(rows)
        unknown = (~self.known[rows]).nonzero()[:, 0]
        whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(len(unknown), 1)
        return torch.cat([owner, unknown]), torch.cat([boxes, whole]), torch.cat([labels, -torch.ones_like(unknown)])

    def with_found(self, found: Detections, sure: Tensor) -> Taught:
        """The same with what a teacher found, on the images that it looked at.

        Args:
            found: Boxes.
            sure: bool ``(M,)``: which of them are objects; the others are left open. Where it is sure of nothing on an
                image there may be what it does not know yet, and not only background.
        """
        known = self.known.clone()
        known[found.looked] = torch.isin(found.looked, found.rows[sure])
        return Taught(replaced(self.labels, found, torch.where(sure, found.labels, -1)), known)
