"""One pretraining, resolved: what was asked becomes a `Job`, and nobody below looks at options again."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from headstart.detectors.base import Detector
from headstart.detectors.find import load_detector
from headstart.errors import UserError
from headstart.images.dataset_yaml import dataset_of, shipped
from headstart.images.index import ImageIndex, find_images
from headstart.images.index_cache import default_folder
from headstart.images.judges import without_judges
from headstart.images.loader import steps_for
from headstart.images.sources import absolute_source
from headstart.jobs.checks import check_beside, check_method, check_run, random_weights, refuse_rgb
from headstart.jobs.choose import (
    LABELLED,
    RANDOM,
    TRAINED,
    chosen_method,
    of_others,
    undecided,
    unknown_anywhere,
    without_objects,
)
from headstart.jobs.fit import fit_of
from headstart.jobs.going_on import continued, killed_early
from headstart.jobs.labelled import given_labels
from headstart.jobs.used_files import relabelled, unchanged
from headstart.launch.places import by_itself
from headstart.machine import parse_device
from headstart.methods import find
from headstart.methods.base import GivenLabels
from headstart.methods.find import Declared
from headstart.methods.namer import at_hand, left_open
from headstart.paths import expanded, located
from headstart.plugins import is_python_file
from headstart.pseudolabels.fit import Fit
from headstart.run.folder import RunFolder, new_folder
from headstart.run.provenance import untested
from headstart.settings.auto import weights_beside
from headstart.settings.length import WITHOUT_GPU, default_steps, published_steps
from headstart.settings.loggers import listed, renamed
from headstart.settings.method_options import MethodSettings, ProposalOptions
from headstart.settings.resolve import Resolved, as_plain, build, collect, conflicts, resolve_pretrain
from headstart.settings.schema import PretrainSettings, truth, which
from headstart.settings.words import none_meant
from headstart.training.memory import BatchTrial
from headstart.trust import SAID


@dataclass(frozen=True)
class Job:
    """A pretraining with nothing left open.

    Attributes:
        asked: What the user gave, as plain values: the same command goes on with the run that it began.
        run: What is used: the options of every pretraining.
        options: What is used: the method's.
        declared: The method.
        images: What it learns from.
        detector: What is trained, with the weights that it starts from.
        why: What was chosen for the user, in sentences.
        record: Of a run to go on with: what its ``settings.yaml`` holds.
        fit: Where a new run was to learn from objects: how well those that are found fit the images.
        given: The labels of the user, where the method learns from them.
        trial: What the batch was chosen by, where it was left open.
    """

    asked: Mapping[str, Any]
    run: PretrainSettings
    options: MethodSettings
    declared: Declared
    images: ImageIndex
    detector: Detector
    why: tuple[str, ...] = ()
    record: Mapping[str, Any] | None = None
    fit: Fit | None = None
    given: GivenLabels | None = None
    trial: BatchTrial | None = None

    @property
    def steps(self) -> int:
        """Steps as given or chosen, or from the epochs; of a budget, which is measured later, those of one epoch."""
        return steps_of(self.run, len(self.images))

    @property
    def early(self) -> bool:
        """Whether this goes on with a run that ended before its steps were known, while it searched or measured."""
        return self.record is not None and self.record["resolved"].get("steps", 0) is None

    def used(self) -> dict[str, Any]:
        """The options that are used, for ``settings.yaml``."""
        return {
            name: as_plain(getattr(part, name)) for part in (self.run, self.options) for name in type(part).model_fields
        }

    def open_folder(self) -> RunFolder:
        """The run folder, taken: a new one, or that of the run to go on with."""
        if self.record is not None:
            folder = RunFolder.open(Path(str(self.run.out)))
            folder.take()
            return folder
        model = self.run.model
        name = Path(model).stem if isinstance(model, (str, os.PathLike)) else type(model).__name__.lower()
        new = new_folder(Path("runs") / "pretrain", f"{name.replace(':', '-')}-{self.declared.name}")
        out = Path(self.run.out) if self.run.out else new
        return RunFolder.create(out, overwrite=self.run.overwrite, unbegun=self.run.resume)


def steps_of(s: PretrainSettings, images: int) -> int:
    """Steps of a run on so many images; of one that a time sets those of an epoch."""
    return s.steps or steps_for(s.epochs or 1, images, s.batch_size)


def check_options(options: Mapping[str, Any]) -> list[UserError]:
    """What is wrong with the options of a pretraining, as far as it shows before images and weights are read."""
    problems: list[UserError] = []
    given = _given(options, problems)
    if given.get("batch") == "auto":
        what = "must be a number here: what fits at the moment would set one pretraining apart from the next"
        problems.append(UserError(what, where="batch"))
        del given["batch"]
    if (which(given.get("devices", "1")), given.get("nodes", 1)) not in (("1", 1), (1, 1)):
        what = "must be 1 here: a comparison trains on one device, and has as many trainings at a time as device= names"
        problems.append(UserError(what, where="devices, nodes"))
    try:
        with by_itself():  # whatever started the comparison
            _before_loading(given | absolute_paths(given), problems)
    except UserError as error:
        return list(error.parts)
    return []


def length_of(options: Mapping[str, Any], images: int) -> int | None:
    """Steps of a run with options that have no problems, on so many images; None where a time sets them."""
    given = dict(options)
    if undecided(given):
        given["method"] = LABELLED if given.get("labels") else RANDOM if random_weights(given) else TRAINED
    declared = find.find(str(given["method"]))
    presets = declared.presets
    preset = presets.get(str(given.get("preset")), next(iter(presets.values()), {}))
    known = {key: value for key, value in {**preset, **given}.items() if key in PretrainSettings.model_fields}
    classes = declared.method.needs.labels
    run, _ = with_length(PretrainSettings(**known), given, not random_weights(given), images, classes=classes)
    return None if run.budget else steps_of(run, images)


def prepare(options: Mapping[str, Any], measure: Callable[[Job], BatchTrial] | None = None) -> Job:
    """Resolve what the user gave: find the images, load the detector, choose the method; each once.

    Args:
        options: As given.
        measure: Finds the batch where that is left open, for a job that has the method's own.

    Raises:
        UserError: Every problem of the options together, before an image is read; later what cannot be used.
    """
    problems: list[UserError] = []
    given = _given(options, problems)
    given |= absolute_paths(given)
    asked = {key: as_plain(value) for key, value in given.items() if key not in ("resume", "overwrite")}
    record, resumes = None, truth(given.get("resume"))
    begins = resumes and killed_early(given)
    if resumes and not begins:
        given, record = continued(given, problems)
    open_batch = given.get("batch") == "auto"
    given = {key: value for key, value in given.items() if key != "batch"} if open_batch else given
    resolved = _before_loading(given, problems)
    labels = str(given["labels"]) if given.get("labels") else None
    images = find_images(resolved.data, cache_folder(resolved), labels=labels, every=resolved.every)
    if labels and (record is None or record["resolved"].get("images") != len(images)):  # earlier versions kept them
        images = without_judges(images, resolved.data, labels)
    refuse_rgb(given, images.channels)
    auto = str(given.get("method")) == "auto" and not given.get("init")
    if beside := weights_beside(resolved.model) if auto else None:
        given["init"] = str(located(beside))
    torch.manual_seed(resolved.seed)
    detector = load_detector(given.get("model", resolved.model), given.get("init"), channels=images.channels)
    settled, declared, why, fit = _method(given, detector, images, record)
    more: tuple[str, ...] = ("no run had begun in this folder: it begins now",) * begins
    more += (f"init={given['init']} lies beside: the published weights of {resolved.model}",) if beside else ()
    run, length = with_length(settled.run, given, detector.trained, len(images), classes=declared.method.needs.labels)
    known, classed = None, detector
    if labels and declared.method.needs.labels:
        known, told = given_labels(labels, images, detector.task)
        relabelled(record["resolved"] if record else {}, known, labels)
        unchanged(record["resolved"] if record else {}, images)
        classed = detector.with_classes(known.names, dataset_of(labels).keypoints())
        classed.imgsz = run.imgsz
        more += told
    settled, told = _named(settled, declared, images, 0 if known is None else len(images) - len(known.rows))
    more += told
    more += (*untested(), SAID) if run.trust else untested()
    job = Job(asked, run, settled.method, declared, images, classed, (*why, *more, *length), record, fit, known)
    return _with_batch(job, given, detector, more, measure) if open_batch and measure else job


def _given(options: Mapping[str, Any], problems: list[UserError]) -> dict[str, Any]:
    """What was given, in a file or by a program, with None where that says ``none``, as at a terminal."""
    given = collect(options, problems)
    return none_meant(find.all_options(given.get("method")), given)


def _named(
    settled: Resolved, declared: Declared, images: ImageIndex, unlabelled: int
) -> tuple[Resolved, tuple[str, ...]]:
    """The settings with a network that names what is found in images without labels, or none; and why."""
    method, options = declared.method, settled.method.model_dump()
    name, why = options.get("teacher"), method.without_teacher
    if left_open(options, method):
        name, why = at_hand(method, options, images.channels) if unlabelled else (None, "")
        settled = settled._replace(method=settled.method.model_copy(update={"teacher": name}))
    elif name is not None:
        why = ""
    return settled, (why,) if why and unlabelled else ()


def _with_batch(
    job: Job, given: Mapping[str, Any], start: Detector, more: tuple[str, ...], measure: Callable[[Job], BatchTrial]
) -> Job:
    """The job with the batch that is measured, and with what is chosen by that: rate and length."""
    trial = measure(job)
    given = {**given, "batch": trial.batch}
    with torch.random.fork_rng(devices=[]):  # the method's heads are to be those of a run that is given this batch
        settled, declared, why, _ = _method(given, start, job.images, None, job.fit)
    classes = declared.method.needs.labels
    run, length = with_length(settled.run, given, start.trained, len(job.images), classes=classes)
    options = settled.method
    if left_open(options.model_dump(), declared.method):
        options = options.model_copy(update={"teacher": job.options.model_dump().get("teacher")})
    return replace(job, run=run, options=options, declared=declared, why=(*why, *more, *length, trial.why), trial=trial)


def _method(
    given: Mapping[str, Any],
    detector: Detector,
    images: ImageIndex,
    record: Mapping[str, Any] | None,
    fit: Fit | None = None,
) -> tuple[Resolved, Declared, tuple[str, ...], Fit | None]:
    """The method, named or chosen, with its options; why; and of one that learns from objects, whether these fit.

    With `fit`, which was found before, these are not looked at again.
    """
    open_to = undecided(given)
    named, why = chosen_method(given, detector, len(images)) if open_to else (given, ())
    settled, declared, fitted = _settled(named, detector, record)
    fit = fit or (_fit(settled, declared, detector, images) if record is None else None)
    other = without_objects(given, detector, len(images)) if open_to and fit and not fit.ok else None
    if other:
        named, why = other
        settled, declared, fitted = _settled(named, detector, record)
    return settled, declared, (*why, *fitted), fit


def with_length(
    run: PretrainSettings, given: Mapping[str, Any], trained: bool, images: int, *, classes: bool
) -> tuple[PretrainSettings, tuple[str, ...]]:
    """The options with a number of steps where neither that nor epochs nor a budget was given, and why so many."""
    if run.steps or run.epochs or run.budget:
        return run, ()
    device = parse_device(run.device).kind
    if given.get("preset") == "tutorial":
        steps, why = published_steps(images, run.batch_size), "the published recipe"
    else:
        steps = default_steps(images, run.batch_size, trained=trained, device=device, classes=classes)
        start, what = "trained" if trained else "random", "your classes, " if classes else ""
        why = f"{what}{images:,} images, {start} weights and {'no GPU' if device == 'cpu' else 'a GPU'}"
    said = f"{steps:,} steps for {why}; steps=, epochs= or budget= set others"
    return run.model_copy(update={"steps": steps}), (said,)


def _settled(
    given: Mapping[str, Any], detector: Detector, record: Mapping[str, Any] | None
) -> tuple[Resolved, Declared, tuple[str, ...]]:
    declared = find.find(str(given["method"]))
    settled = _resolve(given, declared, [], trained=detector.trained and record is None)
    told: tuple[str, ...] = ()
    if declared.method.needs.labels and given.get("imgsz") is None and parse_device(settled.run.device).kind == "cpu":
        settled = settled._replace(run=settled.run.model_copy(update={"imgsz": WITHOUT_GPU}))
        told = (f"imgsz={WITHOUT_GPU}, for there is no GPU; imgsz= sets the size at which your detector is to be used",)
    fitting, fitted = _fitting(settled, detector, backbone=declared.method.needs.trains == "backbone")
    return fitting, declared, (*told, *fitted)


def _fitting(settled: Resolved, detector: Detector, *, backbone: bool) -> tuple[Resolved, tuple[str, ...]]:
    """Images of sides that the network takes, rounded up to a multiple of its largest stride; what was changed.

    A neck joins maps of several strides: of others they do not meet. A trainer rounds them likewise. A backbone alone
    takes most sides, and those of today's recipes stay; that of YOLO12 cuts its map into four strips.
    """
    told = []

    def fitting(options: Any, name: str) -> dict[str, int]:
        side = getattr(options, name, None)
        up, why = detector.fitting(side or 0)
        if not side or not why or (backbone and detector.takes(side)):
            return {}
        told.append(f"{name}={why}")
        return {name: up}

    crops = fitting(settled.run, "local_imgsz") if backbone else {}
    run = settled.run.model_copy(update=fitting(settled.run, "imgsz") | crops)
    return Resolved(run, settled.method.model_copy(update=fitting(settled.method, "label_imgsz"))), tuple(told)


def _fit(settled: Resolved, declared: Declared, detector: Detector, images: ImageIndex) -> Fit | None:
    if not (declared.method.needs.pseudolabels and isinstance(settled.method, ProposalOptions)):
        return None
    return fit_of(settled.run, settled.method, detector, images)


def _before_loading(given: Mapping[str, Any], problems: list[UserError]) -> PretrainSettings:
    """The options of every pretraining; or all problems together, those of a method that is named among them."""
    if undecided(given):
        problems += [*unknown_anywhere(given), *conflicts(given)]
        run = build(PretrainSettings, {k: v for k, v in given.items() if k in PretrainSettings.model_fields}, problems)
        problems += check_run({**_defaults(PretrainSettings), "batch": None, **given})  # the method has its own
        problems += check_beside(given)
        if problems or run is None:
            raise UserError.several(problems)
        return run
    try:
        declared = find.find(str(given["method"]))
    except UserError as error:
        problems += [error, *check_run({**_defaults(PretrainSettings), "batch": None, **given})]
        build(PretrainSettings, {k: v for k, v in given.items() if k in PretrainSettings.model_fields}, problems)
        raise UserError.several(problems) from error
    return _resolve(given, declared, problems).run


def _resolve(
    given: Mapping[str, Any], declared: Declared, problems: list[UserError], *, trained: bool = False
) -> Resolved:
    def check(values: Mapping[str, Any]) -> list[UserError]:
        return [*check_run(values), *check_method(values, declared.name, declared.method)]

    foreign = of_others(given, declared.name, declared.settings)
    told = {problem.where for problem in foreign}
    return resolve_pretrain(
        {key: value for key, value in given.items() if key not in told},
        declared.settings,
        declared.presets,
        method=declared.name,
        problems=[*problems, *foreign],
        trained=trained,
        check=check,
    )


def _defaults(kind: type[PretrainSettings]) -> dict[str, Any]:
    return {name: field.default for name, field in kind.model_fields.items() if not field.is_required()}


def absolute_paths(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that may name files, as absolute paths: a run can be gone on with from another folder."""
    found: dict[str, Any] = {}
    for key in ("model", "init", "proposals", "teacher", "teacher_weights", "method", "labels"):
        item = options.get(key)
        if isinstance(item, (str, os.PathLike)) and Path(item).is_file():
            found[key] = str(located(item))
    if isinstance(loggers := listed(options.get("loggers")), list):
        found["loggers"] = [renamed(one, _absolute_file) for one in loggers]
    for key in ("cache_dir", "export_labels"):
        if isinstance(options.get(key), (str, os.PathLike)) and os.fspath(options[key]):
            found[key] = str(expanded(options[key]).absolute())
    data = options.get("data")
    named = list(data) if isinstance(data, (list, tuple)) else [data]
    paths = [os.fspath(one) for one in named if isinstance(one, (str, os.PathLike))]
    if data and len(paths) == len(named):
        names = [os.path.expanduser(path) for path in paths]  # noqa: PTH111
        found["data"] = [name if "://" in name or shipped(name) else absolute_source(name) for name in names]
    return found


def _absolute_file(name: Any) -> Any:
    return str(located(name)) if is_python_file(name) else name


def cache_folder(s: PretrainSettings) -> Path:
    """Where indexes and decoded images are kept."""
    return expanded(s.cache_dir) if s.cache_dir else default_folder()
