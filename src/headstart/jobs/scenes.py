"""A detection data set drawn by the program: scenes to try everything on where there are no images at hand.

Eight classes are told apart by their shape alone: color, texture, size, rotation and background are drawn without
looking at the class, so a detector has to learn form. Every image follows from the seed, its split and its number.
"""

from __future__ import annotations

import colorsys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from headstart.errors import UserError
from headstart.jobs import shapes as stencils
from headstart.jobs.shapes import Mask

Pixels = NDArray[np.float32]

CLASSES = ("disc", "ring", "triangle", "square", "star", "cross", "crescent", "arrow")
SPLITS = ("unlabelled", "train", "val")
_PLACING_TRIES = 25


@dataclass(frozen=True)
class Scene:
    """One drawn image and its ground truth.

    Attributes:
        image: uint8 (S, S, 3), RGB.
        classes: int64 (N,), indices into the shapes of its kind.
        boxes: int64 (N, 4), x0, y0, x1, y1 in pixels (x1 and y1 exclusive), tight around what is visible.
        owner: int16 (S, S), which object a pixel shows: 0 .. N-1, or -1 for none.
    """

    image: NDArray[np.uint8]
    classes: NDArray[np.int64]
    boxes: NDArray[np.int64]
    owner: NDArray[np.int16]


def _noise(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """Smooth noise of several scales, in [0, 1]: the coarser, the stronger."""
    total = np.zeros((height, width), np.float32)
    cells, weight, fading = float(rng.uniform(2, 6)), 1.0, float(rng.uniform(0.4, 0.8))
    while cells < max(height, width):
        grid = rng.random((int(cells) + 1, int(cells) + 1), dtype=np.float32)
        total += weight * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        cells, weight = cells * 2.3, weight * fading
    return _limit((total - total.min()) / max(float(np.ptp(total)), 1e-6))


def _limit(values: NDArray[Any]) -> Pixels:
    limited: Pixels = np.clip(values, 0, 1).astype(np.float32)
    return limited


def _plane(rng: np.random.Generator, height: int, width: int) -> tuple[Pixels, Pixels]:
    """Rotated coordinates about the middle of the patch, in pixels."""
    angle = rng.uniform(0, np.pi)
    y = np.arange(height, dtype=np.float32)[:, None] - height / 2
    x = np.arange(width, dtype=np.float32) - width / 2
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return x * cosine + y * sine, y * cosine - x * sine


def _period(rng: np.random.Generator, height: int, width: int) -> float:
    """Length of a repeat in pixels: never so fine that it becomes gray."""
    return max(4.0, float(rng.uniform(0.1, 0.35)) * max(height, width))


def _stripes(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """Parallel bands, hard- or soft-edged, sometimes wavy."""
    along, across = _plane(rng, height, width)
    period = _period(rng, height, width)
    if rng.random() < 0.4:
        along = along + np.float32(period * 0.4) * np.sin(across * np.float32(2 * np.pi / (2.5 * period)))
    hardness = rng.choice([1.0, 6.0])
    return _limit(0.5 + hardness * 0.5 * np.sin(along * np.float32(2 * np.pi / period)))


def _checker(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """A rotated chessboard."""
    along, across = _plane(rng, height, width)
    frequency = np.float32(2 * np.pi / (1.4 * _period(rng, height, width)))
    return _limit(0.5 + 5 * np.sin(along * frequency) * np.sin(across * frequency))


def _dots(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """Round spots on a rotated grid."""
    along, across = _plane(rng, height, width)
    frequency = np.float32(2 * np.pi / _period(rng, height, width))
    wave = np.cos(along * frequency) + np.cos(across * frequency)
    return _limit((wave - rng.uniform(0.3, 1.0)) * 3)


def _gradient(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """A linear ramp."""
    along, _ = _plane(rng, height, width)
    return _limit((along - along.min()) / max(float(np.ptp(along)), 1e-6))


def _plain(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """Nearly one color, with a little noise so that it is not a flat area of a drawing."""
    return _limit(0.25 * _noise(rng, height, width))


Texture = Callable[[np.random.Generator, int, int], Pixels]


@dataclass(frozen=True)
class Kind:
    """What scenes show.

    Attributes:
        shapes: What is dealt, by name.
        stencil: Draws one of them, of a radius in pixels.
        one_class: Name of the class that all of them are; "": each is one.
        objects: Fewest and most in one image.
        radius: Smallest and largest, as shares of the image's side; between them evenly by their logarithm.
        visible: Share of an object's area that neither the border nor another object may hide.
        textures: Of surfaces.
        busy: Whether there are things that are no object, and shadows.
    """

    shapes: tuple[str, ...] = CLASSES
    stencil: Callable[[str, float, np.random.Generator], Mask] = stencils.any_way
    one_class: str = ""
    objects: tuple[int, int] = (1, 5)
    radius: tuple[float, float] = (0.08, 0.25)
    visible: float = 0.6
    textures: tuple[Texture, ...] = (_noise, _stripes, _checker, _dots, _gradient, _plain)
    busy: bool = True

    @property
    def classes(self) -> tuple[str, ...]:
        """Of its labels."""
        return (self.one_class,) if self.one_class else self.shapes


SCENES = Kind()
SIGNS = Kind(
    stencils.SIGNS,
    stencils.upright,
    objects=(1, 2),
    radius=(0.18, 0.3),
    visible=0.85,
    textures=(_plain, _gradient, _noise),
    busy=False,
)
"""Few, large, upright signs on calm ground."""
THINGS = replace(SIGNS, shapes=stencils.THINGS, stencil=stencils.thing, one_class="thing")
"""As calm, all of one class: things none of which is one of the signs."""


def _color(rng: np.random.Generator) -> Pixels:
    """A color, float32 (3,) in [0, 1]: every hue, from pale to strong, never quite black."""
    return np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.1, 0.85), rng.uniform(0.25, 0.95)), np.float32)


def _surface(rng: np.random.Generator, height: int, width: int, contrast: float, kind: Kind) -> Pixels:
    """A textured surface, float32 (H, W, 3) in [0, 1], between two colors; `contrast` (0..1) is how far apart."""
    texture = kind.textures[rng.integers(len(kind.textures))](rng, height, width)
    if rng.random() < 0.5:
        texture = 0.7 * texture + 0.3 * _noise(rng, height, width)
    one = _color(rng)
    other = one + contrast * (_color(rng) - one)
    return _limit(one + texture[..., None] * (other - one))


class _Canvas:
    """A picture in the making: pixels, and which object owns each."""

    def __init__(self, pixels: Pixels, visible: float) -> None:
        self.pixels, self.visible = pixels, visible
        self.size = pixels.shape[0]
        self.owner = np.full(pixels.shape[:2], -1, np.int16)
        self.areas: list[int] = []

    def window(self, mask: Mask, x: int, y: int) -> tuple[tuple[slice, slice], Mask]:
        """The part of the picture that a stencil with its corner at (x, y) covers, and that part of the stencil."""
        x0, y0 = max(x, 0), max(y, 0)
        x1, y1 = min(x + mask.shape[1], self.size), min(y + mask.shape[0], self.size)
        return (slice(y0, y1), slice(x0, x1)), mask[y0 - y : y1 - y, x0 - x : x1 - x]

    def fits(self, mask: Mask, x: int, y: int) -> bool:
        """Whether this object, and all drawn before, would stay visible enough."""
        where, part = self.window(mask, x, y)
        solid = part >= 128
        if solid.sum() < self.visible * (mask >= 128).sum():
            return False
        hidden = np.bincount(self.owner[where][solid] + 1, minlength=len(self.areas) + 1)[1:]
        seen = np.bincount(self.owner.ravel() + 1, minlength=len(self.areas) + 1)[1:]
        return bool(np.all(seen - hidden >= self.visible * np.array(self.areas)))

    def shade(self, mask: Mask, x: int, y: int, *, strength: float, softness: float) -> None:
        """Darken the surroundings as a soft shadow does."""
        pad = int(3 * softness) + 1
        soft = cv2.GaussianBlur(np.pad(mask, pad), (0, 0), softness)
        where, part = self.window(soft, x - pad, y - pad)
        self.pixels[where] *= 1 - strength * (part[..., None].astype(np.float32) / 255)

    def paint(self, mask: Mask, x: int, y: int, surface: Pixels) -> NDArray[np.bool_]:
        """Lay `surface` (h, w, 3, as large as `mask`) over the picture; returns which pixels it now shows."""
        where, part = self.window(mask, x, y)
        alpha = part[..., None].astype(np.float32) / 255
        rows, columns = where[0].start - y, where[1].start - x
        piece = surface[rows : rows + part.shape[0], columns : columns + part.shape[1]]
        self.pixels[where] += alpha * (piece - self.pixels[where])
        covered = np.zeros(self.owner.shape, np.bool_)
        covered[where] = part >= 128
        return covered


def _clutter(canvas: _Canvas, rng: np.random.Generator) -> None:
    """Things that are no object: soft blobs and thin bars behind the objects."""
    size = canvas.size
    for _ in range(rng.integers(0, 5)):
        mask = np.zeros((size, size), np.uint8)
        if rng.random() < 0.5:
            start, end = rng.integers(0, size, 2), rng.integers(0, size, 2)
            cv2.line(mask, start.tolist(), end.tolist(), (255,), int(rng.integers(1, max(2, size // 40) + 1)))
        else:
            axes = rng.uniform(0.05, 0.3, 2) * size
            box = (rng.uniform(0, size, 2).tolist(), axes.tolist(), float(rng.uniform(0, 180)))
            cv2.ellipse(mask, box, (255,), -1)
            mask = cv2.GaussianBlur(mask, (0, 0), float(rng.uniform(3, 8)) * size / 160)
        left, top, width, height = cv2.boundingRect(mask)
        part = mask[top : top + height, left : left + width]
        canvas.paint(part, left, top, np.broadcast_to(_color(rng), (height, width, 3)))


def _object_surface(canvas: _Canvas, mask: Mask, x: int, y: int, rng: np.random.Generator, kind: Kind) -> Pixels:
    """A surface that stands out from what it will cover (a little at least: the eye must be able to find it)."""
    (height, width), (where, part) = mask.shape, canvas.window(mask, x, y)
    behind = canvas.pixels[where][part >= 128].mean(axis=0)
    while True:
        surface = _surface(rng, height, width, contrast=float(rng.uniform(0.1, 0.7)), kind=kind)
        if np.abs(surface[mask >= 128].mean(axis=0) - behind).sum() > 0.45:
            return _limit(surface + 0.15 * (_gradient(rng, height, width) - 0.5)[..., None])


def _place(canvas: _Canvas, name: str, rng: np.random.Generator, kind: Kind) -> bool:
    """Draw one object where it fits; False when no place was found."""
    size = canvas.size
    smallest, largest = kind.radius
    for _ in range(_PLACING_TRIES):
        radius = size * float(np.exp(rng.uniform(np.log(smallest), np.log(largest))))
        mask = kind.stencil(name, radius, rng)
        x, y = (int(v) for v in rng.integers(0, size, 2) - mask.shape[0] // 2)
        if canvas.fits(mask, x, y):
            break
        largest = max(1.125 * smallest, largest * 0.93)
    else:
        return False
    surface = _object_surface(canvas, mask, x, y, rng, kind)
    if kind.busy and rng.random() < 0.6:
        reach = rng.uniform(-0.25, 0.25, 2) * radius
        softness = float(rng.uniform(0.06, 0.2)) * radius + 0.5
        strength = float(rng.uniform(0.3, 0.7))
        canvas.shade(mask, x + int(reach[0]), y + int(reach[1]), strength=strength, softness=softness)
    canvas.owner[canvas.paint(mask, x, y, surface)] = len(canvas.areas)
    canvas.areas.append(int((mask >= 128).sum()))
    return True


def _photograph(pixels: Pixels, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Uneven light, a little blur, sensor noise: float32 (S, S, 3) in [0, 1] -> uint8."""
    size = pixels.shape[0]
    light = cv2.resize(rng.uniform(0.55, 1.25, (3, 3)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    pixels = pixels * light[..., None]
    if rng.random() < 0.4:
        pixels = cv2.GaussianBlur(pixels, (0, 0), float(rng.uniform(0.4, 1.1)) * size / 160)
    grain = rng.standard_normal(pixels.shape[:2], dtype=np.float32)[..., None]
    pixels = pixels + float(rng.uniform(0.0, 0.035)) * grain
    return np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)


def _tight_boxes(owner: NDArray[np.int16], count: int) -> NDArray[np.int64]:
    """Boxes (N, 4) around the visible pixels of each object."""
    boxes = np.zeros((count, 4), np.int64)
    for number in range(count):
        ys, xs = np.nonzero(owner == number)
        boxes[number] = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
    return boxes


def draw_scene(
    rng: np.random.Generator, imgsz: int, deck: Iterator[int], redeal: Callable[[int], None], kind: Kind = SCENES
) -> Scene:
    """Draw one scene.

    Args:
        rng: Where all chance of this scene comes from.
        imgsz: Side of the square image, in pixels.
        deck: Gives the shape of the next object.
        redeal: Takes back one that found no place, so that they stay balanced.
        kind: What it shows.
    """
    ground = _surface(rng, imgsz, imgsz, contrast=float(rng.uniform(0.2, 0.8)), kind=kind)
    canvas = _Canvas(np.ascontiguousarray(ground), kind.visible)
    if kind.busy:
        _clutter(canvas, rng)
    classes: list[int] = []
    for _ in range(rng.integers(kind.objects[0], kind.objects[1] + 1)):
        label = next(deck)
        if _place(canvas, kind.shapes[label], rng, kind):
            classes.append(label)
        else:
            redeal(label)
    boxes = _tight_boxes(canvas.owner, len(classes))
    return Scene(_photograph(canvas.pixels, rng), np.array(classes, np.int64), boxes, canvas.owner)


def draw_scenes(split: str, count: int, *, imgsz: int = 160, seed: int = 0, kind: Kind = SCENES) -> Iterator[Scene]:
    """The first `count` scenes of a split. A larger count begins with the same scenes; splits share none.

    Classes are dealt from shuffled packs of one of each, so they are balanced whatever the count.
    """
    branch = SPLITS.index(split)
    dealer = np.random.default_rng([seed, branch, 0])
    pack: deque[int] = deque()

    def deal() -> Iterator[int]:
        while True:
            if not pack:
                pack.extend(int(label) for label in dealer.permutation(len(kind.shapes)))
            yield pack.popleft()

    deck = deal()
    for number in range(count):
        yield draw_scene(np.random.default_rng([seed, branch, 1, number]), imgsz, deck, pack.appendleft, kind)


def _label_lines(scene: Scene, one_class: bool) -> str:
    """YOLO labels: class, center x, center y, width, height, as shares of the image's side."""
    size = scene.image.shape[0]
    lines = []
    for label, (x0, y0, x1, y1) in zip(scene.classes, scene.boxes, strict=True):
        values = ((x0 + x1) / 2 / size, (y0 + y1) / 2 / size, (x1 - x0) / size, (y1 - y0) / size)
        lines.append(f"{0 if one_class else label} " + " ".join(f"{value:.6f}" for value in values) + "\n")
    return "".join(lines)


def _write_split(folder: Path, split: str, count: int, imgsz: int, seed: int, kind: Kind) -> None:
    images, labels = folder / "images" / split, folder / "labels" / split
    images.mkdir(parents=True, exist_ok=True)
    if split != "unlabelled":
        labels.mkdir(parents=True, exist_ok=True)
    for number, scene in enumerate(draw_scenes(split, count, imgsz=imgsz, seed=seed, kind=kind)):
        # Encoded in memory: cv2.imwrite mistakes non-ASCII paths on some systems, and does not say when a disk is full.
        _, data = cv2.imencode(".jpg", scene.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 93])
        (images / f"{number:05d}.jpg").write_bytes(data.tobytes())
        if split != "unlabelled":
            (labels / f"{number:05d}.txt").write_text(_label_lines(scene, bool(kind.one_class)), encoding="utf-8")


def draw_dataset(
    folder: str | Path, *, unlabelled: int, train: int, val: int, imgsz: int = 160, seed: int = 0, kind: Kind = SCENES
) -> Path:
    """Draw a detection data set: ``images/{unlabelled,train,val}``, ``labels/{train,val}``, ``scenes.yaml``.

    The same arguments give the same bytes, in any folder (about 8 ms of one core an image at 160 px).

    Args:
        folder: A new or empty folder.
        unlabelled: Images to pretrain on; no labels are written for them.
        train: Labelled images to fine-tune on.
        val: Labelled images to measure on.
        imgsz: Side of the square images, in pixels, at least 64.
        seed: Another seed draws another data set of the same kind.
        kind: What the scenes show.

    Returns:
        The path of the Ultralytics dataset YAML. It holds no absolute path: the folder can be moved.

    Raises:
        UserError: The folder holds something already, or a number makes no sense.
    """
    root = Path(folder)
    counts = {"unlabelled": unlabelled, "train": train, "val": val}
    if wrong := [name for name, count in counts.items() if count < 0]:
        raise UserError("a negative number of images cannot be drawn", where=wrong[0], hint="give 0 or more")
    if imgsz < 64:
        raise UserError(f"{imgsz} px is too small to tell the shapes apart", where="imgsz", hint="give 64 or more")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UserError("holds something already", where=str(root), hint="name a new folder, or remove this one")
    for split, count in counts.items():
        _write_split(root, split, count, imgsz, seed, kind)
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(kind.classes))
    text = f"# Scenes drawn by headstart, seed {seed}. Images to pretrain on, without labels: images/unlabelled\n"
    path = root / "scenes.yaml"
    path.write_text(f"{text}train: images/train\nval: images/val\nnames:\n{names}", encoding="utf-8")
    return path
