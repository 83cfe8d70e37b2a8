"""The images of a data set: those that cannot be read, odd sizes, and the same ones on both sides of a division."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import NamedTuple

from headstart import machine
from headstart.comparison import likeness
from headstart.comparison.leaks import MOST, on_both_sides
from headstart.comparison.likeness import Thumbnails
from headstart.doctor.dataset import Box, Part
from headstart.doctor.findings import Finding, lost, pairs
from headstart.images.decode import bytes_of
from headstart.images.frames import is_video_name, parse
from headstart.images.headers import DecodeError, read_header
from headstart.images.index import ImageIndex
from headstart.images.samples import spread
from headstart.images.video import Capture

STRIP = 4.0
"""Ratio of the sides from which an image is a strip: of a square that it fits into it fills a quarter at most."""
TINY = 32
"""Pixels: the largest stride of most detectors; a smaller image is one cell of the coarsest map."""
STRIDE = 8
"""Pixels: the smallest stride of most detectors; a smaller object is less than a cell of the finest map."""
_MANY_SMALL = 0.2


class Looks(NamedTuple):
    """What images look like.

    Attributes:
        made: Thumbnails of those that can be read.
        images: Paths of all of them, also of those that were not looked at, of very many.
    """

    made: Thumbnails
    images: Sequence[str]

    @property
    def looked(self) -> int:
        """How many were looked at."""
        return len(self.made.paths) + len(self.made.unread)

    @property
    def left(self) -> int:
        """How many were not."""
        return len(self.images) - self.looked


def look_at(images: Sequence[str]) -> Looks:
    """Decode images to small ones; of more than `MOST`, so many evenly spread ones."""
    return Looks(likeness.thumbnails(_spread(images)), images)


def _spread(images: Sequence[str]) -> Sequence[str]:
    """All, or `MOST` evenly over their order."""
    return [images[at] for at in spread(len(images), MOST)]


def read_findings(name: str, looks: Looks) -> list[Finding]:
    """Images that cannot be read."""
    unread = tuple(f"{path}: {reason}" for path, reason in looks.made.unread)
    left = f" ({looks.left:,} more were not looked at)" if looks.left else ""
    if not unread:
        words = f"{name}: all of {looks.looked:,} images can be read{left}"
        return [Finding(f"images.{name}.read", "unknown" if left else "ok", words)]
    words = f"{name}: {len(unread):,} of {looks.looked:,} images cannot be read{left}"
    do = "take them out or save them anew: they are skipped"
    return [Finding(f"images.{name}.read", lost(len(unread), looks.looked), words, do, unread)]


def refused_findings(name: str, looks: Looks, number: int, refused: Mapping[str, str]) -> list[Finding]:
    """Images that can be read here, and that a training leaves out.

    Args:
        name: Of their part of the data set.
        looks: At this part.
        number: Images of the part.
        refused: Image -> why no training takes it.
    """
    known = {path for path, _ in looks.made.unread}
    some = tuple(f"{path}: {why}" for path, why in refused.items() if path not in known)
    if not some:
        return []
    words = f"{name}: {len(some):,} of {number:,} images are left out by a training"
    do = "save those anew that are in another format than their name says, and take the others out"
    return [Finding(f"images.{name}.refused", lost(len(some), number), words, do, some)]


def video_findings(images: ImageIndex) -> list[Finding]:
    """What is used of videos and shards, and those that cannot be read, or not to their end."""
    found = []
    if images.shards:
        words = f"images in {len(images.shards):,} shards: {'; '.join(images.notes)}"
        found.append(Finding("shards", "ok", words, facts={"shards": len(images.shards)}))
    if frames := sum(parse(path) is not None for path in images):
        words = f"{frames:,} of {len(images):,} images are frames of videos: {'; '.join(images.notes)}"
        found.append(Finding("videos", "ok", words, facts={"frames": frames}))
    if images.skipped:
        for name, kind in (("videos.read", "videos"), ("shards.read", "shards or their members")):
            some = [f"{one}: {why}" for one, why in images.skipped if is_video_name(one) == (kind == "videos")]
            if some:
                words = f"{len(some):,} {kind} cannot be read, or not to their end"
                do = f"copy them anew from where they come from, or {'convert' if kind == 'videos' else 'pack'} them"
                found.append(Finding(name, "note", words, do, tuple(some)))
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Sizes
# ---------------------------------------------------------------------------------------------------------------------


def sizes_of(images: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Width and height of each image whose header can be read; of more than `MOST`, of evenly spread ones."""
    videos: dict[str, tuple[int, int]] = {}

    def one(path: str) -> tuple[int, int] | None:
        try:
            if (frame := parse(path)) is not None:
                videos[frame.video] = videos.get(frame.video) or Capture(frame.video).size
                return videos[frame.video]
            header = read_header(bytes_of(path))
        except (DecodeError, OSError):
            return None
        return header.width, header.height

    looked = _spread(images)
    with ThreadPoolExecutor(max(1, machine.cores())) as pool:
        return {path: size for path, size in zip(looked, pool.map(one, looked), strict=True) if size}


def size_findings(sizes: Mapping[str, tuple[int, int]]) -> list[Finding]:
    """The sizes of images, and those that are odd."""
    if not sizes:
        return []
    common, number = Counter(sizes.values()).most_common(1)[0]
    low = min(sizes.values(), key=lambda size: size[0] * size[1])
    high = max(sizes.values(), key=lambda size: size[0] * size[1])
    words = f"{len(sizes):,} images of {_shown(low)} to {_shown(high)} pixels, most often {_shown(common)} ({number:,})"
    facts = {"images": len(sizes), "least": low, "greatest": high, "commonest": common}
    found = [Finding("sizes", "ok", words, facts=facts)]
    strips = [path for path, (wide, high) in sizes.items() if max(wide, high) >= STRIP * min(wide, high)]
    if strips:
        words = f"{len(strips):,} images are {STRIP:g} times as long as wide, or more: most of what a detector sees of "
        words += "them is the gray around them"
        do = "cut them into pieces, or train with rect=True"
        found.append(Finding("sizes.strips", "note", words, do, _named(strips, sizes)))
    tiny = [path for path, size in sizes.items() if min(size) < TINY]
    if tiny:
        words = f"{len(tiny):,} images have a side of less than {TINY} pixels"
        found.append(Finding("sizes.tiny", "note", words, "look whether these are images", _named(tiny, sizes)))
    return found


def object_findings(part: Part, sizes: Mapping[str, tuple[int, int]], imgsz: int) -> list[Finding]:
    """How large the objects are once an image is scaled to `imgsz`, and how many are smaller than a cell."""
    sides = [
        side
        for image in part.labelled
        if image in sizes
        for side in (_side(one.box, sizes[image], imgsz) for one in part.objects[image])
    ]
    if not sides:
        return []
    small, middle = sum(side < STRIDE for side in sides) / len(sides), median(sides)
    words = f"objects in {part.name} at imgsz={imgsz}: median {middle:.0f} pixels a side, {small:.0%} below {STRIDE}, "
    words += "the finest stride"
    facts = {"median": middle, "below_stride": small, "imgsz": imgsz}
    do = f"raise imgsz (imgsz={2 * imgsz}), or cut the images into pieces" if small >= _MANY_SMALL else ""
    return [Finding("sizes.objects", "note" if do else "ok", words, do, facts=facts)]


def _side(box: Box, size: tuple[int, int], imgsz: int) -> float:
    """Square root of a box's area in pixels, where the image's longer side is `imgsz`."""
    scale = imgsz / max(size)
    wide, high = (box[2] - box[0]) * size[0] * scale, (box[3] - box[1]) * size[1] * scale
    return float((wide * high) ** 0.5)


def _shown(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _named(paths: Sequence[str], sizes: Mapping[str, tuple[int, int]]) -> tuple[str, ...]:
    return tuple(f"{path}: {_shown(sizes[path])}" for path in paths)


# ---------------------------------------------------------------------------------------------------------------------
# The same on both sides
# ---------------------------------------------------------------------------------------------------------------------


def copy_findings(held_out: str, other: str, measured: Looks, trained: Looks) -> list[Finding]:
    """Images that are measured on and trained on: by content, by what they show, and as frames beside others.

    All are compared by content, which needs no decoding; by what they show, those that were looked at.

    Args:
        held_out: What is measured on, for words: ``val``.
        other: What is trained on: ``train``.
        measured, trained: Their images.
    """
    about = f"copies.{held_out}.{other}"
    test, others = measured.made, trained.made
    whole = _usable(measured)
    same = on_both_sides(whole, _usable(trained))
    known = {one for one, _ in same}
    near = likeness.nearest(test.values, others.values)
    alike = [pair for pair in likeness.look_alike(test, others, near) if pair[0] not in known]
    known |= {one for one, _ in alike}
    beside = [pair for pair in likeness.beside_each_other(test, others, near) if pair[0] not in known]
    found = []
    for kind, some, number, words in (
        ("content", same, len(whole), f"of {held_out} have the content of an image of {other}"),
        ("alike", alike, len(test.paths), f"of {held_out} look the same as one of {other}, saved anew or resized"),
    ):
        if some:
            count = len({one for one, _ in some})
            do = "take them out on one side: a score on images that were trained on says nothing"
            told = f"{count:,} of {number:,} images {words}"
            found.append(Finding(f"{about}.{kind}", "wrong", told, do, pairs(some), {"images": count}))
    if beside:
        words = (
            f"{len(beside):,} of {len(test.paths):,} images of {held_out} look most like the image of {other} beside "
        )
        words += "them by number, as frames of one recording do"
        do = "put whole recordings on one side: on new ones the score may be lower"
        found.append(Finding(f"{about}.recordings", "note", words, do, pairs(beside), {"images": len(beside)}))
    if measured.left or trained.left:
        looked = " and ".join(
            f"{some.looked:,} of {len(some.images):,} images of {name}"
            for name, some in ((held_out, measured), (other, trained))
        )
        words = "all were compared by content, and none is on both sides; " if not found else ""
        words += f"by what they show, and as frames beside each other, {looked} were compared: of the others it is not "
        found.append(Finding(f"{about}.looked", "unknown", f"{words}known"))
    elif not found:
        words = f"no image of {held_out} is one of {other}: by content, by what they show, as frames beside each other"
        found.append(Finding(about, "ok", words))
    return found


def _usable(some: Looks) -> list[str]:
    """Without those that cannot be read: empty files are all the same."""
    unread = {path for path, _ in some.made.unread}
    return [path for path in some.images if path not in unread]
