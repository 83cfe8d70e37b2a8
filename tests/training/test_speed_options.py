"""The options that are for speed alone, through the whole of a pretraining."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml

from headstart.jobs.pretrain import pretrain

SMALL: dict[str, Any] = {
    "batch": 4, "steps": 3, "imgsz": 64, "local_imgsz": 32, "locals": 1, "report": False, "log_every": 1,
    "device": "cpu",
}  # fmt: skip


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_cache_changes_nothing_but_the_time(image_folder: Path, tmp_path: Path) -> None:
    runs = {}
    for name, cache in (("off", "off"), ("first", "disk"), ("second", "disk"), ("device", "device")):
        pretrain(data=str(image_folder), out=str(tmp_path / name), cache=cache, cache_dir=str(tmp_path / "c"), **SMALL)
        runs[name] = lines(tmp_path / name)
    losses = {name: [line["loss"] for line in run] for name, run in runs.items()}
    assert losses["off"] == losses["first"] == losses["second"] == losses["device"]
    assert len(set(losses["off"])) == 3
    for line in runs["off"]:
        assert sum(line[f"time_{part}"] for part in ("views", "step", "other")) + line["data_wait"] == pytest.approx(1)
    log = (tmp_path / "second" / "log.txt").read_text()
    assert "12 of 24 images are there already" in log
    assert "time: waiting for images" in log
    kept = yaml.safe_load((tmp_path / "device" / "settings.yaml").read_text())["resolved"]
    assert (kept["cache"], kept["workers"], kept["channels_last"], kept["compile"]) == ("device", 0, True, False)


def test_off_is_a_word_in_yaml_too(tmp_path: Path) -> None:
    (tmp_path / "cfg.yaml").write_text("cache: off\nchannels_last: true\ncompile: auto\n")
    run = tiny.resolve({"data": "x", "cfg": str(tmp_path / "cfg.yaml")}).run
    assert (run.cache, run.channels_last, run.compile) == ("off", True, "auto")


def test_crops_of_one_size_in_one_pass(image_folder: Path, tmp_path: Path) -> None:
    for name, merge in (("apart", False), ("together", True)):
        pretrain(
            data=str(image_folder), out=str(tmp_path / name), cache="off", precision="32", merge_views=merge, **SMALL
        )
    apart, together = lines(tmp_path / "apart"), lines(tmp_path / "together")
    assert all(line["loss"] > 0 for line in together)
    assert [line["loss"] for line in apart] != [line["loss"] for line in together]  # statistics are shared by crops
