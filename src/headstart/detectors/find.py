"""Which family a detector is of: the files in ``detectors/``, and the packages that declare an entry point.

A family is a module, or any object, with ``accepts(model) -> bool``, ``check(model) -> list[UserError]`` (cheap: before
anything is loaded or downloaded), ``load(model, init) -> Detector``, and optionally ``check_init(init)``, ``finetuner()
-> Finetuner`` and ``live(path)``, the object that its own tools make of a checkpoint. Bare names are Ultralytics'; the
others carry a prefix: ``torchvision:fcos_resnet50_fpn``. An installed package adds a family with an entry point of the
group ``headstart.detectors``, whose name is the prefix.

A family is imported when it is asked for. Nothing here imports torch: a misspelt name is answered at once.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from headstart import plugins
from headstart.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from headstart.detectors.base import Detector
    from headstart.detectors.finetuner import Finetuner

GROUP = "headstart.detectors"
DEFAULT = "ultralytics"
# Two letters at least, and no "//" after: neither a drive of Windows nor an address.
_PREFIXED = re.compile(r"([A-Za-z][\w-]+):(?!//)(.*)", re.DOTALL)


class Family(Protocol):
    """A family of detectors, as the rest of the package sees it."""

    def accepts(self, model: Any) -> bool:
        """Whether `model` is a live object, or an existing file, of this family."""

    def check(self, model: Any) -> list[UserError]:
        """What is wrong with `model`, a name, path or live object; nothing is loaded or downloaded."""

    def load(self, model: Any, init: str | Path | None = None) -> Detector:
        """See `load_detector`."""


def built_in() -> list[str]:
    """Names of the families in this folder, each in a folder of its own; nothing is imported."""
    return sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]) if module.ispkg)


def installed() -> dict[str, EntryPoint]:
    """Name -> entry point of the families that other packages declare; nothing is imported."""
    return plugins.installed(GROUP)


def families() -> dict[str, Family]:
    """Every family that can be imported, by name."""
    found = {}
    for name in dict.fromkeys([*built_in(), *installed()]):
        try:
            found[name] = named(name)
        except UserError:  # told when it is asked for
            continue
    return found


def named(name: str) -> Family:
    """The family of this name.

    Raises:
        UserError: There is none, or the package that declares it cannot be imported.
    """
    if name in built_in():
        return cast(Family, importlib.import_module(f"headstart.detectors.{name}"))
    if name not in installed():
        known = sorted({*built_in(), *installed()})
        hint = did_you_mean(name, known) or f"there are {', '.join(known)}; bare names are Ultralytics'"
        raise UserError(f"no family of detectors is called {name!r}", where="model", hint=hint)
    point = installed()[name]
    try:
        family = point.load()
    except Exception as error:  # whatever an import of somebody else's package may raise
        reason = f"{type(error).__name__}: {error}"
        raise UserError(
            f"the detectors {name!r} ({point.value}) cannot be imported: {reason}", where="model"
        ) from error
    if missing := [part for part in ("accepts", "check", "load") if not callable(getattr(family, part, None))]:
        raise UserError(f"the detectors {name!r} ({point.value}) have no {' and no '.join(missing)}", where="model")
    return cast(Family, family)


def split_name(model: str) -> tuple[str, str]:
    """Family and name: ("torchvision", "fcos_resnet50_fpn"); the family of a bare name is empty."""
    match = _PREFIXED.fullmatch(model)
    return (match[1], match[2]) if match and not Path(model).exists() else ("", model)


def family(model: Any) -> Family:
    """The family that `model` is of.

    Raises:
        UserError: Of none, or of one that cannot be imported.
    """
    if isinstance(model, (str, Path)):
        prefix, _ = split_name(str(model))
        if prefix:
            return named(prefix)
        return (_accepting(model) if Path(model).is_file() else None) or named(DEFAULT)
    found = _accepting(model)
    if found is None:
        kind = f"{type(model).__module__}.{type(model).__qualname__}"
        hint = "give a model YAML (yolo11n.yaml), a .pt checkpoint, or a YOLO object"
        raise UserError(f"a {kind} is not a detector that can be pretrained", where="model", hint=hint)
    return found


def _accepting(model: Any) -> Family | None:
    """The family that takes a live object or a file for its own; the default one is asked last."""
    for name in sorted({*built_in(), *installed()}, key=lambda name: (name == DEFAULT, name)):
        try:
            found = named(name)
            if found.accepts(model):
                return found
        except Exception:  # a broken package keeps nobody from using the others
            if name in built_in():
                raise
    return None


def check_model(model: Any, *, where: str = "model") -> list[UserError]:
    """What is wrong with `model`, before anything is loaded or downloaded; empty when nothing is found.

    Args:
        model: As `load_detector` takes it.
        where: The option that names it.
    """
    try:
        found = family(model).check(model)
    except UserError as error:
        found = [error]
    return [one.moved("model", where) for one in found]


def check_init(model: Any, init: str) -> list[UserError]:
    """What is wrong with ``init=`` for a detector of the family of `model`; likewise."""
    try:
        check = getattr(family(model), "check_init", None)
    except UserError:  # told of the model
        return []
    if check is not None:
        return list(check(init))
    return [] if Path(init).is_file() else [UserError(f"{init} does not exist", where="init")]


def load_detector(
    model: Any, init: str | Path | None = None, *, where: str = "model", channels: int | None = 3
) -> Detector:
    """Load or build a detector for pretraining.

    Args:
        model: For Ultralytics a model YAML or its name ("yolo11n": random weights), a ``.pt`` checkpoint, or a live
            object (YOLO, RTDETR, YOLOWorld, YOLOE), which is copied and left as it is; for another family its name
            with the family's prefix ("torchvision:retinanet_resnet50_fpn": random weights), or a checkpoint of it.
        init: A checkpoint of the same architecture whose tensors are loaded over the model's, by name and shape.
            Its backbone must fit completely; `Detector.notes` says how much of neck and head did.
        where: The option that names `model`, for what is said of it.
        channels: Of the images that it is to read. The first layer of one that reads RGB is made for as many, and
            `Detector.notes` says how. None: as many as it reads, where there are no images to be read.

    Raises:
        UserError: The model is not found, cannot be read, built or trained, holds NaN, or `init` is of another
            architecture.
    """
    from headstart.detectors.base import Detector, refuse_not_finite

    try:
        loaders = family(model)
        found = loaders.load(model, init) if channels == 3 else _with_channels(loaders, model, init, channels)
    except UserError as error:
        raise error.moved("model", where) from error
    if isinstance(found, Detector):
        source = str(model) if isinstance(model, (str, Path)) else found.name
        refuse_not_finite(found.module.state_dict(), source, where=where)
    return found


def _with_channels(loaders: Family, model: Any, init: str | Path | None, channels: int | None) -> Any:
    load = getattr(loaders, "load_with_channels", None)
    if load is None and channels is None:
        return loaders.load(model, init)
    if load is None:
        what = f"{model} reads RGB, and the images of the data set have {channels} channels"
        raise UserError(what, where="model", hint="give a detector of Ultralytics, or leave channels: out")
    return load(model, init, channels)


def finetuner(model: str) -> Finetuner:
    """How detectors of the family of `model` are fine-tuned.

    Raises:
        UserError: There is no such family, or it has no fine-tuning.
    """
    make = getattr(family(model), "finetuner", None)
    if make is None:
        prefix = split_name(model)[0]
        raise UserError(f"the detectors of {prefix!r} have no fine-tuning, so they cannot be compared", where="model")
    return cast("Finetuner", make())
