"""Outlines and stencils of the things in drawn scenes: shapes at any angle, and signs that stand upright."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.uint8]
Points = NDArray[np.float64]


def _regular(corners: int, radius: float = 1.0, inner: float | None = None) -> Points:
    """Corners (N, 2) of a regular polygon, or of a star where an `inner` radius is given."""
    count = corners * 2 if inner else corners
    angles = np.arange(count) * 2 * np.pi / count
    radii = np.where(np.arange(count) % 2 == 0, radius, inner or radius)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _outline(name: str, rng: np.random.Generator) -> tuple[Points, Points | None]:
    """The polygon (N, 2) of a shape within the unit circle, and the polygon cut out of it, if any."""
    whole = {"disc": _regular(40), "ring": _regular(40), "triangle": _regular(3), "square": _regular(4)}
    if name == "ring":
        return whole[name], _regular(40, radius=rng.uniform(0.45, 0.62))
    if name in whole:
        return whole[name], None
    if name == "star":
        return _regular(5, inner=rng.uniform(0.4, 0.5)), None
    if name == "crescent":
        return _regular(40), _regular(40, radius=rng.uniform(0.75, 0.85)) + np.array([rng.uniform(0.42, 0.55), 0])
    arm = rng.uniform(0.24, 0.34)
    if name == "cross":
        corner = np.array([[1, -arm], [1, arm], [arm, arm]])
        quarter = np.array([[0, -1], [1, 0]])
        return np.concatenate([corner @ np.linalg.matrix_power(quarter.T, turn) for turn in range(4)]), None
    arm, neck = arm * 0.8, rng.uniform(-0.05, 0.2)
    arrow = [[1, 0], [neck, 0.75], [neck, arm], [-1, arm], [-1, -arm], [neck, -arm], [neck, -0.75]]
    return np.array(arrow), None


def _rotation(rng: np.random.Generator) -> Points:
    return _turned(rng.uniform(0, 2 * np.pi))


def _turned(angle: float) -> Points:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def any_way(name: str, radius: float, rng: np.random.Generator) -> Mask:
    """An anti-aliased stencil, uint8 (H, W) with 255 inside: the shape turned, stretched and slanted at random."""
    slanted = np.array([[1.0, rng.uniform(-0.15, 0.15)], [0.0, rng.uniform(0.8, 1.0)]])
    bend = _rotation(rng) @ slanted @ _rotation(rng)
    return _stencil(*_outline(name, rng), bend, radius)


def _stencil(polygon: Points, hole: Points | None, bend: Points, radius: float) -> Mask:
    side = int(np.ceil(radius * 2.4)) + 4
    mask = np.zeros((side, side), np.uint8)
    for part, value in ((polygon, 255), (hole, 0)):
        if part is not None:
            points = np.rint((part @ bend.T * radius + side / 2) * 16).astype(np.int32)
            cv2.fillPoly(mask, [points], (value,), cv2.LINE_AA, 4)
    return mask


SIGNS = ("ring", "triangle", "square", "star", "cross", "up", "down", "arch")
"""Each the same upright as in a mirror: a detector's training mirrors images."""
TURN = 0.2
"""Radians by which a sign is turned at most."""
_UPRIGHT = np.array([[0.0, 1.0], [-1.0, 0.0]])  # shapes point along x; y grows downwards
_AS = {"up": "arrow", "down": "arrow", "arch": "crescent"}


def upright(name: str, radius: float, rng: np.random.Generator) -> Mask:
    """A stencil as `any_way` gives it, of one of `SIGNS`: nearly upright."""
    lying, hole = _outline(_AS.get(name, name), rng)
    bend = _turned(rng.uniform(-TURN, TURN)) @ np.array([[1.0, rng.uniform(-0.1, 0.1)], [0.0, rng.uniform(0.85, 1.0)]])
    if name in ("down", "arch"):
        lying, hole = -lying, None if hole is None else -hole
    stand = _turned(np.pi / 4) if name == "square" else _UPRIGHT
    return _stencil(lying @ stand.T, None if hole is None else hole @ stand.T, bend, radius)


def thing(name: str, radius: float, rng: np.random.Generator) -> Mask:
    """A stencil as `any_way` gives it, of one of `THINGS`."""
    return _stencil(_OTHERS[name] * rng.uniform(0.9, 1.05, 2), None, _rotation(rng), radius)


def _letter(*corners: tuple[float, float]) -> Points:
    return np.array(corners)


_OTHERS = {
    "disc": _regular(40),
    "pentagon": _regular(5),
    "hexagon": _regular(6),
    "burst": _regular(8, inner=0.55),
    "bar": _letter((-1, -0.25), (1, -0.25), (1, 0.25), (-1, 0.25)),
    "kite": _letter((1, 0), (0.2, 0.6), (-1, 0), (0.2, -0.6)),
    "bow": _letter((0.8, 0.8), (0, 0.15), (-0.8, 0.8), (-0.8, -0.8), (0, -0.15), (0.8, -0.8)),
    "l": _letter((-0.9, -0.8), (0.9, -0.8), (0.9, -0.3), (-0.35, -0.3), (-0.35, 0.8), (-0.9, 0.8)),
    "t": _letter(
        *((0.9, -0.8), (0.9, 0.8), (0.45, 0.8), (0.45, 0.22)),
        *((-0.9, 0.22), (-0.9, -0.22), (0.45, -0.22), (0.45, -0.8)),
    ),
    "h": _letter(
        *((-0.9, -0.8), (0.9, -0.8), (0.9, -0.4), (0.2, -0.4), (0.2, 0.4), (0.9, 0.4)),
        *((0.9, 0.8), (-0.9, 0.8), (-0.9, 0.4), (-0.2, 0.4), (-0.2, -0.4), (-0.9, -0.4)),
    ),
    "pie": np.concatenate([[[0.0, 0.0]], [[np.cos(turn), np.sin(turn)] for turn in np.linspace(-2.3, 2.3, 30)]]),
}
THINGS = tuple(_OTHERS)
"""Shapes none of which is one of `SIGNS`."""
