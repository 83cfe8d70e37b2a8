"""The contract of a teacher, and a frozen network as one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from headstart.errors import UserError
from headstart.teachers.folding import folded


@dataclass(frozen=True)
class TeacherSource:
    """What a user says of a teacher.

    Attributes:
        teacher: A torch module or live detector, the path of a checkpoint or of a Python file, or a name.
        weights: File of its weights, for a network that timm makes.
        mean, std: Of each color, from 0 to 1, that a torch module was trained with; None: it takes images in [0, 1].
    """

    teacher: Any
    weights: str | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> TeacherSource:
        """From the options of a method: ``teacher``, ``teacher_weights``, ``teacher_mean``, ``teacher_std``."""
        return cls(options["teacher"], *(options.get(f"teacher_{name}") for name in ("weights", "mean", "std")))

    def useless(self, names: Sequence[str], why: str) -> list[UserError]:
        """A problem for each of the options `names` (``weights``, ``mean``, ``std``) that is given all the same."""
        given = [name for name in names if getattr(self, name) is not None]
        return [UserError(f"has no effect here: {why}", where=f"teacher_{name}", hint="leave it out") for name in given]


class Teacher(nn.Module, ABC):
    """A trained network that a method learns from: frozen, in evaluation mode, with its own normalization.

    A subclass sets `name`, `widths` and `strides`, and writes `forward`; `FrozenTeacher` makes one of a torch module.

    Attributes:
        name: For messages.
        widths: Channels of its maps.
        strides: Input pixels to a cell of each, measured.
    """

    name: str
    widths: tuple[int, ...]
    strides: tuple[float, ...]

    @abstractmethod
    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps ``(B, width, h, w)`` of images float ``(B, 3, H, W)``, RGB in [0, 1], finest first.

        Sides that the network cannot take are its own matter: any from 32 pixels on must be taken.
        """

    @property
    def described(self) -> int:
        """How many numbers `describe` gives of an image."""
        return self.widths[-1]

    def describe(self, images: Tensor) -> Tensor:
        """What whole images show, ``(B, described)``; here the mean of the last map. Things are told apart by it.

        Args:
            images: float ``(B, 3, H, W)``, RGB in [0, 1].
        """
        return self(images)[-1].float().mean((2, 3))  # type: ignore[no-any-return]

    def train(self, mode: bool = True) -> Teacher:
        """Stays in evaluation mode, whatever the method that holds it is told."""
        super().train(False)
        return self

    def frozen(self) -> Teacher:
        """The teacher itself, in evaluation mode, with no parameter that requires gradients."""
        self.requires_grad_(False)
        return self.train(False)


class FrozenTeacher(Teacher):
    """See `headstart.teachers.base.Teacher`.

    Args:
        module: Called with normalized images; gives a map, several (list, tuple, dict), or tokens ``(B, N, C)``.
        name: For messages.
        mean: Of each color; what the module was trained with.
        std: Standard deviation of each color, likewise.
        size: Multiple of pixels that its input sides need.
        skip: Tokens before those of the patches (class token, registers).

    Raises:
        UserError: It gives no feature map.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        module: nn.Module,
        name: str,
        mean: Sequence[float] = (0, 0, 0),
        std: Sequence[float] = (1, 1, 1),
        size: int = 32,
        skip: int = 0,
    ) -> None:
        super().__init__()
        self.name, self.module, self.size, self.skip = name, module, size, skip
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).reshape(1, 3, 1, 1))
        self.frozen()
        side = self._side
        with torch.no_grad():
            device = next(module.parameters(), self.mean).device
            self.to(device)
            try:
                maps = self(torch.full((1, 3, side, side), 0.5, device=device))
            except UserError:
                raise
            except Exception as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise UserError(f"{name} cannot be fed {side} x {side} pixels: {reason}", where="teacher") from error
        self.widths = tuple(one.shape[1] for one in maps)
        self.strides = tuple(side / one.shape[-1] for one in maps)

    @property
    def _side(self) -> int:
        """Of images that it is tried with, pixels."""
        return max(256, 4 * self.size) // self.size * self.size

    def quicker(self) -> FrozenTeacher:
        """Itself, with its batch norms folded into its convolutions where that leaves the maps as they are."""
        random = torch.Generator().manual_seed(0)
        images = torch.rand(1, 3, self._side, self._side, generator=random).to(self.mean.device)
        self.module = folded(self.module, lambda network: self._maps(network, images))
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """See `Teacher`; images whose sides the module cannot take are resized to the next size up."""
        sides = [-(-side // self.size) * self.size for side in images.shape[-2:]]
        if sides != list(images.shape[-2:]):
            images = nn.functional.interpolate(images, sides, mode="bilinear", align_corners=False)
        return self._maps(self.module, images)

    def _maps(self, network: nn.Module, images: Tensor) -> list[Tensor]:
        found = network((images - self.mean) / self.std)
        return maps_of(found, self.name, self.skip, (images.shape[-2], images.shape[-1]))


def maps_of(found: Any, name: str, skip: int = 0, sides: tuple[int, int] = (1, 1)) -> list[Tensor]:
    """The feature maps in what a network gives, finest first.

    Args:
        found: A map, several (list, tuple, dict), or tokens ``(B, N, C)`` of square patches.
        name: Of the network, for messages.
        skip: Tokens before those of the patches.
        sides: Height and width of the images in pixels, by which tokens are laid out.

    Raises:
        UserError: There are none.
    """
    if isinstance(found, dict):
        found = list(found.values())
    parts = [found] if isinstance(found, Tensor) else list(found) if isinstance(found, (list, tuple)) else []
    tensors = [part for part in parts if isinstance(part, Tensor)]
    maps = [one for one in tensors if one.ndim == 4]
    if not maps:
        maps = [one for tokens in tensors if tokens.ndim == 3 for one in _from_tokens(tokens[:, skip:], sides)]
    if not maps:
        shapes = ", ".join(str(tuple(one.shape)) for one in tensors) or type(found).__name__
        hint = "it must give (B, C, h, w), several of them, or tokens (B, h * w, C)"
        raise UserError(f"{name} gives no feature map ({shapes})", where="teacher", hint=hint)
    return sorted(maps, key=lambda one: -one.shape[-1])


def _from_tokens(tokens: Tensor, sides: tuple[int, int]) -> list[Tensor]:
    """Tokens as a map in the proportions of the image, or else as a square; nothing where neither is possible."""
    count = tokens.shape[1]
    patch = (sides[0] * sides[1] / max(count, 1)) ** 0.5
    square = round(count**0.5)
    for rows, columns in ((round(sides[0] / patch), round(sides[1] / patch)), (square, square)):
        if rows * columns == count > 0:
            return [tokens.transpose(1, 2).unflatten(2, (rows, columns))]  # type: ignore[no-untyped-call]
    return []
