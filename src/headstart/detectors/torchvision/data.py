"""Labelled images as torchvision's detectors take them: read, scaled to one longer side, and augmented."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import torch
import yaml
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from headstart.detectors.used import Counts, count
from headstart.errors import UserError
from headstart.images.decode import DecodeError, read_image
from headstart.images.labels import Keypoints, Labels, keypoints_for, label_path, read_labels

Target = dict[str, Tensor]
GRAY = 114
"""What fills a canvas that an image does not, as in Ultralytics' trainings."""


class LabelledImages(Dataset[tuple[Tensor, Target]]):
    """Images and their boxes; an image without a label file, or with an empty one, is background.

    Args:
        paths: Of the images.
        classes: Number of classes, without the background.
        imgsz: Side to which the longer one is scaled, pixels.
        augment: Changes image and boxes, for a training.
        keypoints: Of labels of poses, of which the boxes are taken.
    """

    def __init__(
        self,
        paths: Sequence[str],
        classes: int,
        imgsz: int,
        augment: Any = None,
        keypoints: Keypoints | None = None,
    ) -> None:
        self.paths, self.classes, self.imgsz, self.augment = paths, classes, imgsz, augment
        self.keypoints = keypoints

    def __len__(self) -> int:
        return len(self.paths)

    def counts(self) -> Counts:
        """Images and objects, as the label files have them now."""
        return count(len(self._labels(path).rows) for path in self.paths)

    def _labels(self, path: str) -> Labels:
        return read_labels(label_path(path), self.classes, self.keypoints)

    def __getitem__(self, place: int) -> tuple[Tensor, Target]:
        """Image float ``(3, H, W)``, RGB in [0, 1]; ``boxes`` ``(N, 4)`` in pixels; ``labels`` int64 ``(N,)`` from 1.

        Raises:
            UserError: The image cannot be read, or a label is of no class.
        """
        path = self.paths[place]
        pixels = scaled(path, self.imgsz)
        height, width = pixels.shape[1:]
        labels = self._labels(path)
        if labels.dropped:  # the comparison leaves such images out beforehand: this one's label changed since
            first = next(problem for problem in labels.problems if problem.drops_image)
            raise UserError(
                str(first), where=str(labels.path), hint="mend the label, or take the image out of the data"
            )
        found = torch.from_numpy(labels.array())
        corners = found[:, 1:] * torch.tensor([width, height, width, height])
        boxes: Any = tv_tensors.BoundingBoxes(corners, format="XYXY", canvas_size=(height, width))
        target: dict[str, Any] = {"boxes": boxes, "labels": found[:, 0].long() + 1}
        image: Any = tv_tensors.Image(pixels)
        if self.augment is not None:
            image, target = self.augment(image, target)
        plain = {name: value.as_subclass(Tensor) for name, value in target.items()}
        return image.as_subclass(Tensor).float() / 255, plain


def scaled(path: str, imgsz: int) -> Tensor:
    """The image at `path`, uint8 ``(3, H, W)``, RGB, its longer side `imgsz` pixels.

    Raises:
        UserError: It cannot be read.
    """
    try:
        pixels = read_image(path)
    except DecodeError as error:
        raise UserError(f"cannot be read: {error.reason}", where=path, hint="take it out of the data") from None
    height, width = pixels.shape[:2]
    factor = imgsz / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return torch.from_numpy(cv2.resize(pixels, size, interpolation=how)).permute(2, 0, 1).contiguous()


def augmentation(imgsz: int, recipe: Mapping[str, float]) -> Any:
    """Mirror, zoom, and a place on a square canvas, as torchvision's references do for "lsj"."""
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(recipe["flip"]),
            v2.ScaleJitter((imgsz, imgsz), scale_range=(recipe["scale_min"], recipe["scale_max"]), antialias=True),
            v2.RandomCrop((imgsz, imgsz), pad_if_needed=True, fill=GRAY),
            v2.ClampBoundingBoxes(),
            v2.SanitizeBoundingBoxes(min_size=2),  # boxes of which next to nothing is left
        ]
    )


def read_lists(data: str | Path) -> tuple[list[str], list[str], Keypoints | None]:
    """The images of ``train`` and ``val`` of a dataset YAML that a comparison wrote: lists of paths; its keypoints."""
    content = yaml.safe_load(Path(data).read_text(encoding="utf-8"))
    train, test = (Path(content[part]).read_text(encoding="utf-8").splitlines() for part in ("train", "val"))
    return train, test, keypoints_for("", content.get("kpt_shape"))


def training_batches(images: LabelledImages, batch: int, seed: int, workers: int) -> DataLoader[Any]:
    """Shuffled batches whose order, and the augmentation in worker processes, follow from `seed`."""
    # A batch norm cannot make statistics of one value, which is what one small image gives at the top of a pyramid.
    alone = len(images) % batch == 1 and len(images) > batch
    return DataLoader(
        images,
        batch_size=batch,
        shuffle=True,
        drop_last=alone,
        num_workers=workers,
        collate_fn=together,
        generator=torch.Generator().manual_seed(seed),
        persistent_workers=workers > 0,
    )


def together(items: Sequence[tuple[Tensor, Target]]) -> tuple[list[Tensor], list[Target]]:
    """Images and targets of a batch, in lists: they are of different sizes."""
    images, targets = zip(*items, strict=True)
    return list(images), list(targets)
