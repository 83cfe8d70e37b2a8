"""What is wrong with a machine and a data set, before a training finds out: ``headstart doctor``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from headstart.detectors.base import Detector
from headstart.doctor import dataset, pictures, system
from headstart.doctor.dataset import Part
from headstart.doctor.findings import Finding, Report, of_error
from headstart.doctor.pictures import Looks
from headstart.doctor.start import fit_findings
from headstart.errors import UserError, arriving
from headstart.files import write_text
from headstart.images.dataset_yaml import SUFFIXES, DatasetYaml, find_dataset_yaml, meant_dataset, read_dataset_yaml
from headstart.images.index import ImageIndex, find_images
from headstart.jobs.fit import fit_of
from headstart.jobs.named_model import ModelHere
from headstart.machine import parse_device
from headstart.run.display import make_console
from headstart.settings.method_options import ProposalOptions
from headstart.settings.schema import PretrainSettings
from headstart.settings.tools import DoctorSettings

UNLABELLED = "images"
MANY = 5_000
"""Images from which on it is said that they are looked at: it takes a while."""


def doctor(s: DoctorSettings) -> Report:
    """Look at the machine and, where one is named, at a data set and at images without labels.

    Nothing is trained, downloaded or changed.

    Raises:
        UserError: What was named is not there.
    """
    parse_device(s.device)
    model = ModelHere(s.model, trust=s.trust)
    file, index = _sources(s)
    unlabelled = tuple(index or ())
    sections = [("Machine", (*system.version_findings(), *system.device_findings(), *system.folder_findings()))]
    if file is None and not unlabelled:
        return Report(tuple(sections))
    parts: dict[str, Part] = {}
    if file is not None:
        found, names, parts = _labels(file, model)
        sections.append((f"Labels of {file}", tuple(found)))
        sections.append(("Classes", tuple(dataset.class_findings(names, parts) if names and parts else ())))
    images = {name: part.images for name, part in parts.items()} | ({UNLABELLED: unlabelled} if unlabelled else {})
    videos = pictures.video_findings(index) if index else []
    sections.append(("Images", (*videos, *_images(images, parts, s, model))))
    sections.append(("Start", tuple(_start(s, model, images, parts, str(file or "")))))
    return Report(tuple((title, some) for title, some in sections if some))


def show(found: Report, where: bool | str) -> None:
    """Print what was found; in full as JSON where that is asked for, or into a file.

    Args:
        found: The findings.
        where: Of the option ``json=``.

    Raises:
        UserError: The file or the output cannot be written.
    """
    text = json.dumps(found.as_dict(), indent=1, ensure_ascii=True)
    if where is True:
        with arriving():
            print(text)
        return
    make_console(soft_wrap=True).print(found.text())
    if where:
        write_text(Path(str(where)), text + "\n")


def _sources(s: DoctorSettings) -> tuple[Path | None, ImageIndex | None]:
    """The dataset YAML, and the images without labels."""
    named = [s.images] if isinstance(s.images, str) else list(s.images or ())
    labelled = s.labels
    if s.data and Path(s.data).suffix.lower() in SUFFIXES:
        if s.labels:
            hint = "give labels= beside images alone"
            raise UserError("name a dataset YAML each: one is looked at", where="data, labels", hint=hint)
        labelled = s.data
    elif s.data:
        named.append(s.data)
    file = find_dataset_yaml(labelled) if labelled else None
    if labelled and file is None:
        hint = meant_dataset(labelled) or "give the path of an Ultralytics dataset YAML"
        raise UserError(f"no such dataset YAML: {labelled}", where="labels" if s.labels else "data", hint=hint)
    return file, find_images(named, every=s.every) if named else None


def _labels(file: Path, model: ModelHere) -> tuple[list[Finding], tuple[str, ...], dict[str, Part]]:
    """What is found in the label files of a data set; its class names, and the parts that could be read."""
    try:
        found = read_dataset_yaml(file)
    except UserError as error:
        return of_error("data", error), (), {}
    poses = "kpt_shape" in found.content and model.poses  # which opens the model's file
    names, keypoints, told = dataset.named_classes(found, poses=poses)
    parts: dict[str, Part] = {}
    for name in _parts(found):
        try:
            parts[name] = dataset.read_part(found, name, len(names) or None, keypoints)
        except UserError as error:
            told += of_error(f"images.{name}", error)
    for part in parts.values():
        told += dataset.label_findings(part)
    return [*told, *dataset.orphan_findings(list(parts.values()))], names, parts


def _parts(found: DatasetYaml) -> list[str]:
    """``train`` and ``val``, which a training needs, and ``test`` where there is one."""
    return ["train", "val", *(["test"] if "test" in found.parts else [])]


def _images(
    images: Mapping[str, Sequence[str]], parts: Mapping[str, Part], s: DoctorSettings, model: ModelHere
) -> list[Finding]:
    """Whether they can be read, their sizes, and the same ones on both sides."""
    looks: dict[str, Looks] = {}
    found: list[Finding] = []
    if (total := sum(map(len, images.values()))) > MANY:
        make_console(stderr=True).print(f"looking at {total:,} images ...")
    for name, paths in images.items():
        looks[name] = pictures.look_at(paths)
        found += pictures.read_findings(name, looks[name])
        if name in parts:
            found += pictures.refused_findings(name, looks[name], len(paths), model.rejected(paths))
    sizes = pictures.sizes_of([path for paths in images.values() for path in paths])
    found += pictures.size_findings(sizes)
    if "train" in parts:
        found += pictures.object_findings(parts["train"], sizes, s.imgsz)
    for held_out in [name for name in ("val", "test") if name in looks]:
        for other in [name for name in ("train", UNLABELLED) if name in looks]:
            found += pictures.copy_findings(held_out, other, looks[held_out], looks[other])
    return found


# ---------------------------------------------------------------------------------------------------------------------
# The start
# ---------------------------------------------------------------------------------------------------------------------


def _start(
    s: DoctorSettings, model: ModelHere, images: Mapping[str, Sequence[str]], parts: Mapping[str, Part], file: str
) -> list[Finding]:
    """How well the weights know the images."""
    labelled = parts["train"].labelled if "train" in parts else []
    looked = labelled or [path for name in ("train", UNLABELLED) for path in images.get(name, ())]
    if not looked:
        return []
    detector = model.detector
    if detector is None or model.path is None:
        words = f"{s.model} is not on this machine: how well it knows these images was not measured"
        return [Finding("start", "unknown", words, "give model= a trained detector's .pt (COCO's, say)")]
    try:
        if isinstance(detector, UserError):
            raise detector
        return _measured(s, detector, model.path, looked, bool(labelled), file)
    except UserError as error:
        return [Finding("start", "unknown", f"not measured: {error.what}", error.hint or "")]


def _measured(
    s: DoctorSettings, detector: Detector, path: str, images: Sequence[str], labels: bool, file: str
) -> list[Finding]:
    if not detector.trained:
        return [Finding("start", "unknown", f"{path} holds random weights: they know nothing", "give trained ones")]
    run = PretrainSettings(data="", device=s.device, probe_labels=labels)
    index = ImageIndex(sorted(images))
    if labels:  # those of poses are read as such
        index.keypoints = read_dataset_yaml(Path(file)).keypoints()
    fit = fit_of(run, ProposalOptions(), detector, index)
    return fit_findings(fit, path, len(detector.names), file)
