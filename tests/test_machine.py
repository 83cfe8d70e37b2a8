from __future__ import annotations

import pytest
import torch

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
