"""``zoom``: how much objects change their size in mosaics, in every method that makes them."""

from __future__ import annotations

from typing import Any, cast

import pytest
import tiny
import torch
from torch import Tensor

from headstart.errors import UserError
from headstart.methods import find
from headstart.pseudolabels import sizes
from headstart.settings.method_options import DetectionSettings

WITH_MOSAICS = [name for name in find.names() if issubclass(find.find(name).settings, DetectionSettings)]


def sides(name: str, step: int = 0, **options: Any) -> Tensor:
    """Sides of the boxes of a step that no border cuts, pixels."""
    # Of labelled images alone, where there are some: what a teacher would label is left open, as large as the image.
    more: dict[str, Any] = {"teacher": None, "burn_in": 1.0, "settle": 0.0} if name == "selftrain" else {}
    made = tiny.build(name, close_mosaic=0.0, view_scale=(1.0, 1.0), **more, **options)
    examples = made.examples(tiny.views(made, step), tiny.progress(step))
    _, _, boxes, labels = cast("tuple[Tensor, Tensor, Tensor, Tensor]", examples)
    boxes = boxes[labels >= 0]
    inside = boxes[(boxes > 0).all(1) & (boxes < made.context.imgsz).all(1)]
    return inside[:, 2:] - inside[:, :2]


def drawn() -> Tensor:
    """Sides of all objects as they are drawn, pixels."""
    return (tiny.found().boxes[:, 2:] - tiny.found().boxes[:, :2]) * 128


def far(found: Tensor, known: Tensor) -> Tensor:
    """Pixels by which the sides of each box miss those of the nearest known one."""
    return torch.cdist(found, known, p=float("inf")).amin(1)


def test_there_are_such_methods() -> None:
    assert {"objects", "selftrain"} <= set(WITH_MOSAICS)


@pytest.mark.parametrize("name", WITH_MOSAICS)
def test_at_zero_objects_keep_their_size(name: str) -> None:
    found, magnified = sides(name, zoom=0.0), sides(name)
    assert len(found) > 0
    assert far(found, drawn()).max() < 1.01  # views are cut at whole pixels
    assert far(magnified, drawn()).max() > 3


@pytest.mark.parametrize("name", WITH_MOSAICS)
def test_objects_are_magnified_within_it(name: str) -> None:
    found = torch.cat([sides(name, step, zoom=0.9) for step in range(8)])
    assert float(found.min()) < 0.7 * float(drawn().min())
    assert float(found.max()) <= 1.9 * float(drawn().max()) + 1


def test_of_the_whole_size_it_is_refused() -> None:
    """Some images would be shown at a size of nothing."""
    with pytest.raises(UserError, match="zoom"):
        tiny.build("objects", zoom=1.0)


@pytest.mark.parametrize(("spread", "zoom"), [(0.1, 0.0), (0.5, 0.5)])
def test_labels_decide_where_nobody_has(spread: float, zoom: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "spread", lambda *_: spread)
    made = tiny.build("selftrain", teacher=None)
    assert made.teacher_record()["zoom"] == zoom
    made.before_step(tiny.progress(0))
    (kind, told) = made.news()[0]
    assert kind == "info"
    assert f"differ in size by {spread:.0%}" in told
    given = tiny.build("selftrain", teacher=None, zoom=0.25)
    assert given.teacher_record()["zoom"] == 0.25
    given.before_step(tiny.progress(0))
    assert not [told for _, told in given.news() if "zoom" in told or "differ in size" in told]
