"""The labels of a data set, by the one reader: what is used, what is left out, and which classes are there."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch

from headstart.doctor.findings import Finding, Outcome, lost, of_error
from headstart.errors import UserError
from headstart.images.class_names import alike
from headstart.images.dataset_yaml import DatasetYaml
from headstart.images.index import find_images
from headstart.images.labels import Keypoints, expected, keypoints_for, label_path, read_labels
from headstart.pseudolabels.sizes import ADDED, spread

FEW = 10
"""Objects of a class in train below which it is said to be rare."""
_MOSTLY = 0.5
Box = tuple[float, float, float, float]


class Object(NamedTuple):
    """One labelled object: its class, and x0, y0, x1, y1 as shares of the image's sides."""

    label: int
    box: Box


@dataclass
class Part:
    """The images and labels of one part of a data set.

    Attributes:
        name: ``train``, ``val`` or ``test``.
        images: Paths of the images that are there.
        missing: Paths that are named and not there.
        objects: Image -> its objects; empty for background. Those that a trainer leaves out are not in it.
        classes: How many objects each class has.
        unlabelled: Images without a label file.
        dropped: Why images are left out, one line each: file, line and reason.
        ineffective: Lines and files that have no effect.
        not_poses: Why a pose model would leave out images that are used, where the data set is one of poses.
        notes: What was passed over when its images were looked for.
    """

    name: str
    images: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    objects: dict[str, list[Object]] = field(default_factory=dict)
    classes: Counter[int] = field(default_factory=Counter)
    unlabelled: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    ineffective: list[str] = field(default_factory=list)
    not_poses: list[str] = field(default_factory=list)
    notes: tuple[str, ...] = ()

    @property
    def labelled(self) -> list[str]:
        """Images that show an object."""
        return [image for image, objects in self.objects.items() if objects]


def read_part(found: DatasetYaml, name: str, classes: int | None, keypoints: Keypoints | None) -> Part:
    """Read a part of a data set.

    Raises:
        UserError: The YAML does not name it, or no image of it is found.
    """
    if name in found.parts and (absent := found.absent(name)):
        raise UserError(f"{name}: {absent.what}", where=found.file.name, hint=absent.hint)
    try:
        index = find_images(found.paths(name), labelled=True)
    except UserError as error:
        looked = found.looked_for(name) if name in found.parts else ""
        where = str(found.file)
        refused = [UserError(f"{name}: {one.what}{looked}", where=where, hint=one.hint) for one in error.parts]
        raise UserError.several(refused) from None
    there = tuple(path for path in index if os.path.exists(path))  # noqa: PTH110 - a Path for each costs more
    known = set(there)
    part = Part(name, there, tuple(path for path in index if path not in known), notes=index.notes)
    for image in there:
        labels = read_labels(label_path(image), classes, keypoints)
        told = [f"{labels.path}: {problem}" for problem in labels.problems]
        if labels.dropped:
            part.dropped += told
            continue
        part.ineffective += told
        if keypoints and not keypoints.learnt:
            part.not_poses += _why_no_pose(labels.path, classes, keypoints)
        part.objects[image] = [Object(row.label, row.box) for row in labels.rows]
        part.classes.update(row.label for row in labels.rows)
        if not labels.path.is_file():
            part.unlabelled.append(image)
    return part


def _why_no_pose(path: Path, classes: int | None, keypoints: Keypoints) -> list[str]:
    """Why a pose model would leave out the image of a label file, in a line; empty where it would not."""
    poses = read_labels(path, classes, keypoints._replace(learnt=True))
    return [f"{path}: {problem}" for problem in poses.problems if problem.drops_image][:1]


def label_findings(part: Part) -> list[Finding]:
    """What of a part's images and labels is used, and what is left out."""
    about, name, number = f"labels.{part.name}", part.name, len(part.images)
    found = []
    if part.missing:
        total = number + len(part.missing)
        words = f"{name}: {len(part.missing):,} of {total:,} images are not there"
        do = "mend the list of images: a trainer leaves these out without a word"
        found.append(Finding(f"images.{name}", lost(len(part.missing), total), words, do, part.missing))
    if part.notes:
        words = f"{name}: some of what it names was passed over: {part.notes[0]}"
        found.append(Finding(f"images.{name}.passed_over", "note", words, details=part.notes))
    left = number - len(part.objects)
    if left:
        words = f"{name}: {left:,} of {number:,} images are left out for their label files"
        do = "mend these lines: a trainer drops the whole image for one of them"
        found.append(Finding(f"{about}.dropped", lost(left, number), words, do, tuple(part.dropped)))
    if part.ineffective:
        words = f"{name}: {len(part.ineffective):,} lines or files of labels have no effect"
        found.append(Finding(f"{about}.ineffective", "note", words, details=tuple(part.ineffective)))
    if part.not_poses:
        words = f"{name}: a pose model would leave out {len(part.not_poses):,} of {number:,} images for their label "
        words += "files, whose boxes a detector takes"
        do = "give model= a pose model (yolo11n-pose.pt) if poses are to be learnt: these are then held to be wrong"
        found.append(Finding(f"{about}.pose", "note", words, do, tuple(part.not_poses)))
    return [*found, *_no_objects(part), _used(part)]


def _no_objects(part: Part) -> Iterator[Finding]:
    about, name = f"labels.{part.name}.objects", part.name
    if part.objects and not part.labelled:
        why = "has no label file" if len(part.unlabelled) == len(part.objects) else "has no object in its labels"
        words = f"{name}: every image {why}, so that nothing can be {'learnt' if name == 'train' else 'measured'}"
        yield Finding(about, "wrong", words, expected(part.images[0]))
    elif len(part.unlabelled) > _MOSTLY * len(part.images):
        words = (
            f"{name}: {len(part.unlabelled):,} of {len(part.images):,} images have no label file: they are taught as "
        )
        words += "images without objects"
        do = "if nobody labelled them, take them out of the data set, and pretrain on them with data="
        yield Finding(about, "note", words, do, tuple(part.unlabelled))


def _used(part: Part) -> Finding:
    objects, labelled = part.classes.total(), part.labelled
    empty = len(part.objects) - len(labelled)
    words = f"{part.name}: {len(part.objects):,} images are used: {len(labelled):,} with {objects:,} objects, "
    words += f"{empty:,} without ({len(part.unlabelled):,} have no label file)"
    facts = {
        "images": len(part.images),
        "used": len(part.objects),
        "with_objects": len(labelled),
        "objects": objects,
        "without_label_file": len(part.unlabelled),
        "missing": len(part.missing),
    }
    return Finding(f"labels.{part.name}", "ok", words, facts=facts)


def class_findings(names: Sequence[str], parts: Mapping[str, Part]) -> list[Finding]:
    """How many objects each class has, and what cannot be learnt or measured for want of them.

    Args:
        names: Of the classes, by index.
        parts: By name; ``train`` and whatever else was read.
    """
    train = parts["train"].classes if "train" in parts else Counter()
    counts = {name: {part: one.classes[at] for part, one in parts.items()} for at, name in enumerate(names)}
    found = [_counted(names, train, counts)]
    if same := alike(names):
        words = f"{'; '.join(same)} are one class to Ultralytics, for which neither case nor spaces around count"
        hint = "give each class a name of its own, under names:"
        found.append(Finding("classes.names", "wrong", words, hint))
    for part, one in parts.items():
        if part != "train" and (unknown := [at for at in sorted(+one.classes) if not train[at]]):
            found.append(_unknown(part, names, unknown, one.classes))
    never = [name for at, name in enumerate(names) if not any(one.classes[at] for one in parts.values())]
    if never:
        words = f"{len(never)} of {len(names)} classes have no object anywhere"
        found.append(Finding("classes.never", "note", words, "look at names: in the dataset YAML", tuple(never)))
    rare = [(number, names[at]) for at, number in train.items() if number < FEW]
    if rare:
        words = (
            f"{len(rare)} classes have fewer than {FEW} objects in train: what is said of them is a matter of chance"
        )
        details = tuple(f"{name}: {number}" for number, name in sorted(rare))
        found.append(Finding("classes.rare", "note", words, "label more of them, or look at the others' mAP", details))
    return [*found, *(_sizes(parts["train"]) if "train" in parts else ())]


def _sizes(train: Part) -> Iterator[Finding]:
    """Objects that keep their size, though a trainer's augmentation changes it."""
    objects = [one for some in train.objects.values() for one in some]
    boxes = torch.tensor([one.box for one in objects]).reshape(-1, 4)
    differ = spread(boxes, torch.tensor([one.label for one in objects], dtype=torch.int64))
    if differ is not None and differ < ADDED:
        words = f"objects of one class in train differ in size by {differ:.0%}, less than Ultralytics' scale=0.5 adds"
        do = "compare with scale=0: such images learnt more so (docs/methods.md, selftrain: sizes that vary, or do not)"
        yield Finding("classes.sizes", "note", words, do, facts={"spread": differ, "scale": ADDED})


def _unknown(part: str, names: Sequence[str], unknown: Sequence[int], objects: Counter[int]) -> Finding:
    """Classes that a part is measured on and nothing can be learnt of.

    A trainer trains all the same, and a long tail has such classes: that is worth knowing. Where most classes are
    concerned, the classes, or the division of the images, are not what was meant.
    """
    there, concerned = len(+objects), sum(objects[at] for at in unknown)
    words = f"{len(unknown)} of {there} classes in {part} are not in train: with {concerned:,} of {objects.total():,} "
    words += f"objects there, they count as 0 in its mAP, {len(unknown) / there:.0%} of it"
    do = "label some images of them for train, or divide the images anew"
    details = tuple(f"{names[at]}: {objects[at]:,}" for at in unknown)
    outcome: Outcome = "wrong" if len(unknown) > _MOSTLY * there else "note"
    facts = {"classes": len(unknown), "of": there, "objects": concerned}
    return Finding(f"classes.{part}_only", outcome, words, do, details, facts)


def _counted(names: Sequence[str], train: Counter[int], counts: Mapping[str, Mapping[str, int]]) -> Finding:
    ordered = [(names[at], number) for at, number in train.most_common() if number]
    if not ordered:
        return Finding("classes", "ok", f"{len(names)} classes", facts={"counts": counts})
    (most, high), (least, low) = ordered[0], ordered[-1]
    shown = f"{most} {high:,}" + (f" to {least} {low:,}" if len(ordered) > 1 else "")
    words = f"{len(ordered)} of {len(names)} classes are in train, objects from {shown}"
    return Finding("classes", "ok", words, facts={"counts": counts})


def named_classes(found: DatasetYaml, *, poses: bool) -> tuple[tuple[str, ...], Keypoints | None, list[Finding]]:
    """Class names and keypoints, and what is wrong with these.

    Args:
        found: The dataset YAML.
        poses: Whether the keypoints are to be learnt; else label files may have boxes alone.
    """
    try:
        return found.class_names(), keypoints_for("pose" if poses else "", found.keypoints()), []
    except UserError as error:
        return (), None, of_error("classes.names", error)


def orphan_findings(parts: Sequence[Part]) -> list[Finding]:
    """Label files beside those of the parts' images that no image of theirs goes with."""
    wanted = {label_path(image) for part in parts for image in part.images}
    if not any(path.is_file() for path in wanted):
        return []
    beside = {path for folder in {one.parent for one in wanted} if folder.is_dir() for path in folder.glob("*.txt")}
    others = sorted(str(path) for path in beside - wanted if path.name != "classes.txt")
    if not others:
        return []
    words = f"{len(others):,} label files have no image in {' and '.join(part.name for part in parts)}"
    do = "look whether images are missing, or named otherwise"
    return [Finding("labels.orphans", "note", words, do, tuple(others))]
