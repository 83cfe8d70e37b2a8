"""Class layers for other classes: the row of a class goes where the class is, by its name, as in Ultralytics' trainer.

Ultralytics does it where a network is loaded into one whose classes have other names, another order, or another number
(its ``cls_remap``). Here is what came of it, and the same for weights that cannot be loaded into a network as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from headstart.detectors.handback import shorten
from headstart.detectors.tensors import own_state, same_bits
from headstart.detectors.ultralytics.opening import with_classes
from headstart.errors import UserError
from headstart.images.class_names import alike, spelling, unnamed


def class_names(module: Any) -> list[str]:
    """Names of the classes of a network, in their order."""
    names = module.names
    return [str(name) for name in (names.values() if isinstance(names, dict) else names)]


def found_by_name(
    own: Mapping[str, Tensor], given: Mapping[str, Tensor], names: Sequence[str], theirs: Sequence[str]
) -> list[str]:
    """Names of the classes whose rows were put into another place, or among others.

    Args:
        own: State of the network with the classes `names`.
        given: State of the one that was loaded into it.
        names: Of the classes of the first.
        theirs: Of the classes of the second.
    """
    pairs, found = _pairs(names, theirs), set()
    for key, tensor in own.items():
        other = given.get(key)
        # Of biases, which begin alike for all classes, equal ones say nothing.
        if other is None or tensor.dim() < 2 or same_bits(tensor, other) or tensor.shape[1:] != other.shape[1:]:
            continue
        if (len(tensor), len(other)) == (len(names), len(theirs)):
            found |= {here for here, there in pairs if same_bits(tensor[here], other[there])}
    return [names[at] for at in sorted(found)]


def rows_by_name(target: Any, source: Any, other: Any) -> dict[str, Tensor]:
    """Class layers of `target` with the rows that another network has for classes of the same name.

    Args:
        target: Network with the user's classes, made of `source`.
        source: Network of the same kind with other classes.
        other: One of the same architecture that `source` could not take as a whole, for its number of classes.
    """
    names = class_names(target)
    pairs = _pairs(names, class_names(other))
    if not pairs:
        return {}
    more = with_classes(source, [*names, "one more"], source.yaml.get("kpt_shape"))
    more.load(source, verbose=False)
    own, given, wider, rows = own_state(target), own_state(other), own_state(more), {}
    here, there = [list(at) for at in zip(*pairs, strict=True)]
    for key, tensor in own.items():
        if key in given and tensor.shape != wider[key].shape and tensor.shape[1:] == given[key].shape[1:]:
            rows[key] = tensor.clone()
            rows[key][here] = given[key][there]
    return rows


def refuse_alike(names: Sequence[str], where: str) -> None:
    """Raise a `UserError` where two classes are one to Ultralytics: a training would begin both with one's row."""
    if same := alike(names):
        what = f"{shorten(same, '; ')} are one class to Ultralytics, for which neither case nor spaces around count"
        raise UserError(what, where=where, hint="give each class of the dataset YAML a name of its own, under names:")


def merged(names: Sequence[str], state: Mapping[str, Tensor], held: Mapping[str, Tensor]) -> frozenset[str]:
    """Class layers that a trainer has changed in nothing but the rows of classes that are `alike`.

    Args:
        names: Of the classes, of start and trainer alike.
        state: Of the start.
        held: What the trainer holds.
    """
    rows = [there for _, there in _pairs(names, names)]
    if rows == list(range(len(names))):
        return frozenset()
    return frozenset(
        name
        for name, tensor in state.items()
        if name in held and tensor.dim() and len(tensor) == len(rows) and same_bits(tensor[rows], held[name])
    )


def _pairs(names: Sequence[str], theirs: Sequence[str]) -> list[tuple[int, int]]:
    """Places of the classes that both have, here and there; none where nobody has named them."""
    if unnamed(names) or unnamed(theirs):
        return []
    places = {spelling(name): at for at, name in enumerate(theirs)}
    return [(at, places[spelling(name)]) for at, name in enumerate(names) if spelling(name) in places]
