"""The contract of a teacher, and a frozen network as one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from headstart.errors import UserError


class Teacher(nn.Module, ABC):
    """A trained network that a method learns from: frozen, in evaluation mode, with its own normalisation.

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
        """Maps ``(B, width, h, w)`` of images float ``(B, 3, H, W)``, RGB in [0, 1], finest first."""


class FrozenTeacher(Teacher):
    """See `headstart.teachers.base.Teacher`.

    Args:
        module: Called with normalised images; gives a map, several (list, tuple, dict), or tokens ``(B, N, C)``.
        name: For messages.
        mean, std: Of each colour; what the module was trained with.
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
        self.requires_grad_(False)
        self.train(False)
        side = max(256, 4 * size) // size * size
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

    def train(self, mode: bool = True) -> FrozenTeacher:
        """Stays in evaluation mode, whatever the method that holds it is told."""
        super().train(False)
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """See `Teacher`; images whose sides the module cannot take are resized to the next size up."""
        sides = [-(-side // self.size) * self.size for side in images.shape[-2:]]
        if sides != list(images.shape[-2:]):
            images = nn.functional.interpolate(images, sides, mode="bilinear", align_corners=False)
        return maps_of(self.module((images - self.mean) / self.std), self.name, self.skip)


def maps_of(found: Any, name: str, skip: int = 0) -> list[Tensor]:
    """The feature maps in what a network gives, finest first.

    Raises:
        UserError: There are none.
    """
    if isinstance(found, dict):
        found = list(found.values())
    parts = [found] if isinstance(found, Tensor) else list(found) if isinstance(found, (list, tuple)) else []
    tensors = [part for part in parts if isinstance(part, Tensor)]
    maps = [one for one in tensors if one.ndim == 4]
    if not maps:
        maps = [one for tokens in tensors if tokens.ndim == 3 for one in _from_tokens(tokens[:, skip:])]
    if not maps:
        shapes = ", ".join(str(tuple(one.shape)) for one in tensors) or type(found).__name__
        hint = "it must give (B, C, h, w), several of them, or (B, h * w, C) of a square image"
        raise UserError(f"{name} gives no feature map ({shapes})", where="teacher", hint=hint)
    return sorted(maps, key=lambda one: -one.shape[-1])


def _from_tokens(tokens: Tensor) -> list[Tensor]:
    side = round(tokens.shape[1] ** 0.5)
    return [tokens.transpose(1, 2).unflatten(2, (side, side))] if side**2 == tokens.shape[1] else []  # type: ignore[no-untyped-call]
