"""Pretrain a detector on unlabelled images: the whole job, from files to a checkpoint that was compared."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from headstart import machine
from headstart.detectors.base import Detector, load_detector
from headstart.detectors.handback import HandBack
from headstart.errors import UserError
from headstart.files import write_text
from headstart.images.cache import Cache, default_folder, open_cache
from headstart.images.index import ImageIndex, find_images
from headstart.images.loader import ImageLoader, steps_for
from headstart.images.samples import sample_images
from headstart.jobs.choosing import with_choice
from headstart.jobs.prepare import anchored, check, model_of, open_folder, stored_options
from headstart.machine import loader_workers, make_fabric
from headstart.methods.anchor import Anchored
from headstart.methods.base import Method
from headstart.methods.find import method_class
from headstart.methods.schedules import Progress
from headstart.probes import assets
from headstart.probes.probe import during
from headstart.pseudolabels.base import Objects
from headstart.pseudolabels.pictures import write_examples, write_kinds
from headstart.pseudolabels.search import objects_of
from headstart.run import clock
from headstart.run.display import Display, Filling, duration
from headstart.run.folder import RunFolder
from headstart.settings import resolve
from headstart.settings.resolve import Resolved
from headstart.settings.schema import PretrainSettings
from headstart.teachers.load import load_teacher, teacher_options
from headstart.training import budget, checkpoint
from headstart.training.loop import Outcome, train
from headstart.views.render import make_views
from headstart.views.spec import ViewSpec

PROBE_IMAGES = 256


@dataclass
class Run:
    """A pretraining that ended.

    Attributes:
        folder: The run folder.
        checkpoint: The detector to fine-tune, ``YOLO(run.checkpoint)``; None where the run was interrupted.
        handback: What arrived in it, tensor by tensor.
        step: Steps done.
        interrupted: Whether Ctrl-C ended it; ``pretrain(out=run.folder, resume=True)`` goes on.
    """

    folder: Path
    checkpoint: Path | None
    handback: HandBack | None
    step: int
    interrupted: bool


def pretrain(**options: Any) -> Run:
    """Pretrain a detector on unlabelled images.

    Args:
        options: As the command takes them; ``headstart pretrain --help`` lists all. ``data`` is needed.

    Raises:
        UserError: Every problem of the options together, before an image is read; later what cannot be gone on from.
    """
    resuming = bool(options.get("resume"))
    given = stored_options(options) if resuming else with_choice(options)
    resolved = resolve.resolve(given, check)
    resolved = resolved._replace(run=resolved.run.model_copy(update=anchored(resolved.run.model_dump())))
    # Before there is a folder: a run that cannot begin leaves none behind.
    images = find_images(resolved.run.data, keep=_cache_folder(resolved.run))
    torch.manual_seed(resolved.run.seed)
    detector = load_detector(model_of(resolved.run, resuming), resolved.run.init)
    folder = open_folder(resolved.run, resuming)
    try:
        return _pretrain(resolved, folder, images, detector, resuming)
    except UserError as error:
        folder.log(f"stopped: {error}")
        raise
    finally:
        folder.close()
        folder.discard_unbegun()


def _pretrain(resolved: Resolved, folder: RunFolder, images: ImageIndex, detector: Detector, resuming: bool) -> Run:
    s = resolved.run
    state = checkpoint.load(folder.checkpoints) if resuming else None
    steps = planned_steps(s, len(images))
    recorded = folder.read_settings().get("resolved") if resuming else None
    arithmetic = machine.choose(s, make_fabric(s).device, recorded)
    fabric = make_fabric(s, arithmetic.precision)
    method = _make_method(resolved, detector)
    trained = set(method.handed_back("student"))
    rest = {name: tensor for name, tensor in detector.module.state_dict().items() if name not in trained}
    if state:
        detector.module.load_state_dict(state["rest"], strict=False)
    elif not isinstance(s.model, str):
        detector.save(folder.path / "start.pt", {})
    specs = method.view_specs()
    began = time.perf_counter()
    if hasattr(resolved.method, "proposals"):
        method.take_objects(objects_of(resolved, folder, images, detector, fabric.device, steps, resuming))
    if s.budget:
        steps = budget.planned_steps(
            resolved,
            method,
            images,
            fabric=fabric,
            workers=loader_workers(s, fabric.device),
            max_area=needed_area(specs),
            spent=time.perf_counter() - began,
        )
    start = int(state["step"]) if state else 0
    probe = during(method.student, images, s)
    cache = _open_cache(s, images, needed_area(specs), steps, fabric)
    on_device = cache.kind == "device"
    with (
        cache,
        ImageLoader(
            images,
            batch=s.batch,
            max_area=needed_area(specs),
            workers=0 if on_device else loader_workers(s, fabric.device),
            seed=s.seed,
            start_step=start,
            steps=steps,
            pin=fabric.device.type == "cuda" and not on_device,
            reader=cache.reader,
        ) as loader,
    ):
        facts = _facts(resolved, detector, images, steps, fabric, loader.workers)
        facts |= {"cache": cache.kind, "channels_last": arithmetic.channels_last, "compile": arithmetic.compile}
        if not resuming:
            folder.write_settings(resolve.to_dict(resolved), facts)
        display = Display(steps, start, cached=cache.share())
        _introduce(display, folder, facts, detector, images, start)
        for line in (arithmetic.why, cache.why):
            folder.log(line)
            display.say(line)
        with display:
            outcome = train(
                method,
                loader,
                fabric=fabric,
                run=folder,
                settings=s,
                optimization=resolved.method,
                images=len(images),
                steps=steps,
                display=display,
                rest=rest,
                probe=probe,
                resume=state,
                arithmetic=arithmetic,
            )
    spent = (
        [clock.sentence(outcome.shares), clock.advice(outcome.shares, facts)] if any(outcome.shares.values()) else []
    )
    for line in filter(None, [*spent, cache.ended]):
        folder.log(line)
        display.say(line)
    if outcome.interrupted:
        return _interrupted(folder, outcome, steps, display)
    return _finish(resolved, folder, detector, method, images, outcome, display)


def _finish(
    resolved: Resolved,
    folder: RunFolder,
    detector: Detector,
    method: Method,
    images: ImageIndex,
    outcome: Outcome,
    display: Display,
) -> Run:
    """Hand the weights back, prove that they arrived, look at what was learnt."""
    method.to("cpu")
    exported = method.handed_back(resolved.run.export)
    detector.graft(exported)
    info = {"method": resolved.info.name, "export": resolved.run.export, "steps": outcome.step, "images": len(images)}
    detector.save(folder.result, info)
    handback = detector.verify(folder.result, trained=set(exported))
    write_text(folder.path / "handback.json", json.dumps(handback.as_dict(), indent=2) + "\n")
    for line in handback.lines():
        folder.log(line)
        display.say(line)
    if resolved.run.report:
        _draw(resolved, folder, detector, method, images)
    display.say(f"{outcome.step} steps in {duration(outcome.seconds)}, {folder.skipped} images skipped")
    if folder.skipped:
        display.say(f"skipped images and why: {folder.path / 'skipped.csv'}")
    if resolved.run.report:
        display.say(f"report:    {folder.path / 'report.html'}")
    display.say(f"fine-tune: {detector.how_to_train(folder.result)}")
    return Run(folder.path, folder.result, handback, outcome.step, interrupted=False)


def _draw(resolved: Resolved, folder: RunFolder, detector: Detector, method: Method, images: ImageIndex) -> None:
    from headstart.report import write_report

    samples = [image for _, image in sample_images(images, PROBE_IMAGES, max_area=512 * 512)]
    if not samples:  # nearly all files are broken: a page without pictures
        write_report(folder.path)
        return
    shown = samples[:6]
    height, width = (max(image.shape[side] for image in shown) for side in (1, 2))
    pixels = torch.zeros(len(shown), 3, height, width, dtype=torch.uint8)
    for row, image in zip(pixels, shown, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = image
    sizes = torch.tensor([image.shape[1:] for image in shown])
    views = make_views(pixels, sizes, method.view_specs(), torch.Generator().manual_seed(resolved.run.seed))
    trunk = detector.trunk(neck=method.trains == "neck").eval()

    @torch.no_grad()
    def features(batch: Tensor) -> tuple[Tensor, Tensor]:
        last = trunk(batch)[-1]
        return last.mean(dim=(2, 3)), last

    stride = detector.backbone.stride
    imgsz = max(stride, resolved.run.imgsz // stride * stride)
    assets.write_assets(folder.path, features, samples, views, imgsz=imgsz)
    if (found := folder.path / "objects.pt").is_file():
        write_kinds(folder.path / "assets" / "kinds.png", Objects.load(found), images)
        _write_examples(folder.path / "assets" / "examples.png", resolved.run, method, images)
    write_report(folder.path)


def _write_examples(path: Path, s: PretrainSettings, method: Method, images: ImageIndex) -> None:
    """What the first images of the run become, where a method does not train on the views as they are."""
    specs = method.view_specs()
    area = needed_area(specs)
    with ImageLoader(images, batch=min(32, s.batch), max_area=area, workers=0, seed=s.seed, steps=1) as loader:
        batch = next(iter(loader))
    random = torch.Generator().manual_seed(s.seed)
    views = make_views(batch.pixels, batch.sizes, specs, random, rows=batch.indices)
    if (examples := method.examples(views, Progress(0, 1_000, 0.0))) is not None:
        write_examples(path, *examples)


def _interrupted(folder: RunFolder, outcome: Outcome, steps: int, display: Display) -> Run:
    folder.event(outcome.step, "info", "interrupted")
    display.say(f"\nstopped at step {outcome.step} of {steps}; everything is saved. To go on:")
    display.say(f"  headstart pretrain resume=true out={folder.path}")
    return Run(folder.path, None, None, outcome.step, interrupted=True)


def _make_method(resolved: Resolved, detector: Detector) -> Method:
    kind = method_class(resolved.info)
    neck = kind.trains == "neck"
    widths = [level.width for level in detector.levels] if neck else [detector.backbone.width]
    options = resolved.method.model_dump()
    extra: list[Any] = []
    if "proposals" in options:  # a teacher is asked for the kinds of what is found, before the first step
        extra = [detector.object_head(options["clusters"])]
    elif "teacher" in options:
        extra = [load_teacher(**teacher_options(options))]
    method = kind(resolved.method, resolved.run, detector.trunk(neck=neck), widths, *extra)
    return Anchored(method, resolved.method.anchor) if resolved.method.anchor else method


def planned_steps(s: PretrainSettings, images: int) -> int:
    """Steps of a run: as given, or from the epochs; without either 15,000, or 10 epochs if that is more."""
    if s.steps is not None:
        return s.steps
    return steps_for(s.epochs, images, s.batch) if s.epochs else max(15_000, steps_for(10, images, s.batch))


def needed_area(specs: list[ViewSpec]) -> int:
    """Pixels that an image must keep so that its smallest crops are not enlarged."""
    return int(max(spec.size**2 / spec.scale[0] for spec in specs))


def _cache_folder(s: PretrainSettings) -> Path:
    return Path(s.cache_dir).expanduser() if s.cache_dir else default_folder()


def _open_cache(s: PretrainSettings, images: ImageIndex, max_area: int, steps: int, fabric: Fabric) -> Cache:
    return open_cache(
        s.cache,
        images,
        max_area,
        folder=_cache_folder(s),
        epochs=steps * s.batch / len(images),
        device=fabric.device,
        workers=loader_workers(s, fabric.device),
        progress=Filling(),
    )


def _facts(
    resolved: Resolved, detector: Detector, images: ImageIndex, steps: int, fabric: Fabric, workers: int
) -> dict[str, Any]:
    return {
        "images": len(images),
        "images_fingerprint": images.fingerprint(),
        "steps": steps,
        "epochs": round(steps * resolved.run.batch / len(images), 2),
        "workers": workers,
        "device": str(fabric.device),
        "precision": str(fabric._precision.precision),
        "detector": {
            "name": detector.name,
            "task": detector.task,
            "classes": len(detector.names),
            "backbone": {"stride": detector.backbone.stride, "width": detector.backbone.width},
            "levels": [{"stride": level.stride, "width": level.width} for level in detector.levels],
        },
    }


def _introduce(
    display: Display, folder: RunFolder, facts: dict[str, Any], detector: Detector, images: ImageIndex, start: int
) -> None:
    backbone = detector.backbone
    lines = [
        f"{facts['images']} images, {detector.name} ({detector.task}), backbone {backbone.width} wide at stride "
        f"{backbone.stride}",
        f"{facts['steps']} steps ({facts['epochs']:g} epochs) on {facts['device']}, {facts['precision']}, "
        f"into {folder.path}",
    ]
    lines += [*detector.notes, *images.notes]
    if start:
        lines.append(f"going on from step {start}")
        before = folder.read_settings()["resolved"]
        if before.get("images_fingerprint") != facts["images_fingerprint"]:
            lines.append(
                f"the images are not those that the run began with ({before.get('images')} then, {facts['images']} "
                "now): it goes on, but is not the run that it would have been"
            )
    for line in lines:
        folder.log(line)
        display.say(line)
