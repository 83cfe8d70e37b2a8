from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from headstart import machine
from headstart.settings.schema import PretrainSettings

CPU = torch.device("cpu")


def settings(**options: object) -> PretrainSettings:
    return PretrainSettings(data="images", **options)  # type: ignore[arg-type]


def test_the_cpu_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_cpu_has", lambda feature: feature == "avx512_bf16")
    found = machine.choose(settings(), CPU)
    assert (found.precision, found.channels_last, found.compile) == ("bf16", False, False)
    assert "the CPU has avx512_bf16" in found.why
    monkeypatch.setattr(machine, "_cpu_has", lambda feature: False)
    assert machine.choose(settings(), CPU).precision == "32"


def test_what_the_user_says_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_cpu_has", lambda feature: True)
    found = machine.choose(settings(precision=32, channels_last="true", compile="true"), CPU)
    assert (found.precision, found.channels_last, found.compile) == ("32", True, True)


def test_a_resumed_run_keeps_its_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_cpu_has", lambda feature: True)
    for recorded, precision in (("32-true", "32"), ("16-mixed", "16"), ("bf16-mixed", "bf16")):
        found = machine.choose(settings(), CPU, {"precision": recorded, "channels_last": True, "compile": True})
        assert (found.precision, found.channels_last, found.compile) == (precision, True, True)


def test_this_cpu_is_asked_by_its_flags() -> None:
    try:
        flags = open("/proc/cpuinfo").read()  # noqa: PTH123, SIM115
    except OSError:
        pytest.skip("no /proc/cpuinfo here")
    if "avx512_bf16" not in flags and "amx_bf16" not in flags and "avx" in flags:
        assert machine.best_precision(CPU)[0] == "32"
    elif "avx512_bf16" in flags:
        assert machine.best_precision(CPU)[0] == "bf16"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout())


@pytest.mark.parametrize("fails", [True, False])
def test_a_trial_of_compilation_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    net = Net()
    before = copy.deepcopy(net.state_dict())
    random = torch.get_rng_state()

    def compile_(self: nn.Module, **options: object) -> None:
        def run(images: torch.Tensor) -> torch.Tensor:
            if fails:
                self.forward(images)  # moves statistics and random numbers, then breaks
                raise RuntimeError("cannot determine truth value of Relational\nand more")
            return self.forward(images)

        self._compiled_call_impl = run

    monkeypatch.setattr(nn.Module, "compile", compile_)

    def attempt() -> torch.Tensor:
        loss = net.body(torch.rand(2, 3, 8, 8)).square().sum()
        loss.backward()
        return loss

    told = machine.compile_or_not({"student": net.body}, net, attempt)
    if fails:
        assert told == "torch.compile fails here, going on without it: cannot determine truth value of Relational"
        assert net.body._compiled_call_impl is None
    else:
        assert told == "compiled: student"
        assert net.body._compiled_call_impl is not None
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(parameter.grad is None for parameter in net.parameters())
