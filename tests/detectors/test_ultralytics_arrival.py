from __future__ import annotations

from typing import Any

import pytest
import torch

from headstart.detectors.tensors import fingerprint
from headstart.detectors.ultralytics.arrival import check_arrival
from headstart.errors import UserError


def trainer(model: torch.nn.Module, ema: torch.nn.Module, names: dict[int, str]) -> Any:
    class Holder:
        pass

    holder, average = Holder(), Holder()
    average.ema = ema  # type: ignore[attr-defined]
    holder.__dict__.update(model=model, ema=average, data={"names": names})
    return holder


class Tiny(torch.nn.Module):
    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, classes))


@pytest.mark.parametrize(
    ("where", "key", "message"),
    [
        (
            "model",
            "model.0.weight",
            "1 of 4 tensors did not reach the trainer's model: model.0.weight has other values",
        ),
        ("ema", "model.0.bias", "1 of 4 tensors did not reach the trainer's EMA: model.0.bias has other values"),
        ("ema", "model.1.weight", "1 of 4 tensors did not reach the trainer's EMA: model.1.weight has other values"),
    ],
)
def test_one_altered_value_is_seen(where: str, key: str, message: str) -> None:
    start, names = Tiny(), {0: "a", 1: "b"}
    modules = {"model": Tiny(), "ema": Tiny()}
    for module in modules.values():
        module.load_state_dict(start.state_dict())
    arrival = check_arrival(trainer(names=names, **modules), start.state_dict(), names, "x.pt")
    assert (arrival.tensors, arrival.model, arrival.ema, arrival.parameters) == (4, 4, 4, 12)
    assert arrival.initial == fingerprint(start.state_dict())
    with torch.no_grad():
        modules[where].state_dict()[key].view(-1)[0] += 1e-6
    with pytest.raises(UserError) as caught:
        check_arrival(trainer(names=names, **modules), start.state_dict(), names, "x.pt")
    assert message in str(caught.value)


def test_other_classes_excuse_the_head_alone() -> None:
    start, module = Tiny(2), Tiny(3)
    module.model[0].load_state_dict(start.model[0].state_dict())
    both = {"model": module, "ema": module}
    arrival = check_arrival(
        trainer(names={0: "a", 1: "b", 2: "c"}, **both), start.state_dict(), {0: "a", 1: "b"}, "x.pt"
    )
    assert arrival.skipped == ("model.1.weight", "model.1.bias")
    with pytest.raises(UserError, match=r"2 of 4 tensors.*model\.1\.weight has shape \(3, 2\)"):
        check_arrival(trainer(names={0: "a", 1: "b"}, **both), start.state_dict(), {0: "a", 1: "b"}, "x.pt")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_start_that_holds_no_numbers_is_refused(value: float) -> None:
    """Its bits are in the trainer, and are worth nothing."""
    start = Tiny()
    with torch.no_grad():
        start.model[1].bias[0] = value
    names = {0: "a", 1: "b"}
    with pytest.raises(UserError, match=r"x.pt: holds NaN or infinity: model.1.bias"):
        check_arrival(trainer(start, start, names), start.state_dict(), names, "x.pt")
