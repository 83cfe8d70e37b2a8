from __future__ import annotations

import itertools
import json
import math
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import fake_run
import numpy as np
import pytest
import yaml
from PIL import Image

from headstart.cli.command import parse
from headstart.cli.options import values
from headstart.errors import UserError
from headstart.report import charts, write_report
from headstart.report.pretraining_verdict import judge
from headstart.report.run_reader import find_run
from headstart.run.folder import RunFolder
from headstart.settings.resolve import collect

VOID = {"meta", "img", "br", "link", "input", "hr"}
CHARTS = ("loss", "entropy", "spread", "rate", "wait", "lr", "ema")


class Page(HTMLParser):
    """Reads a page strictly: every element closed in order, ids used once; collects what the tests ask for."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.html = path.read_text(encoding="utf-8")
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.codes: list[str] = []
        self.feed(self.html)
        self.close()
        assert self.open == []
        assert len(self.ids) == len(set(self.ids))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.elements.append((tag, found))
        self.ids += [found["id"]] if found.get("id") else []
        self.links += [str(found[name]) for name in ("src", "href", "xlink:href") if name in found]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["style"], ["script"]):
            self.texts.append(data)
        if self.open[-2:] == ["pre", "code"]:
            self.codes.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


def draw(run: Path) -> Page:
    path = write_report(run)
    assert path == run / "report.html"
    return Page(path)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return fake_run.write_run(tmp_path / "run")


def add_pictures(run: Path) -> None:
    (run / "assets").mkdir()
    for name in ("views", "neighbours", "components"):
        Image.effect_noise((300, 200), 60).convert("RGBA").save(run / "assets" / f"{name}.png")
    probe = {"images": 64, "cosine_nearest": 0.93, "cosine_any_two": 0.81, "components": {"cells": [14, 14]}}
    (run / "assets" / "probe.json").write_text(json.dumps(probe))


def test_finished_run(run: Path) -> None:
    add_pictures(run)
    page = draw(run)
    assert "No collapse" in page.text
    assert "5,948 images from airfield/images" in page.text
    assert "5,000 steps" in page.text
    assert "207 of 207 backbone tensors" in page.text
    assert "yolo detect train data=your.yaml model=" in page.text
    assert "ultralytics" in page.text
    assert "0.930 to the nearest, 0.810 between any two" in page.text
    for name in CHARTS:
        assert f"chart-{name}" in page.ids
    assert page.count("svg") == 2 * len(CHARTS)
    assert page.count("img") == 3


@pytest.mark.parametrize("name", ["clusters.png", "kinds.png"])
@pytest.mark.parametrize("teacher", [None, "vit_small <b>"])
def test_by_what_the_clusters_were_made(run: Path, teacher: str | None, name: str) -> None:
    settings = yaml.safe_load((run / "settings.yaml").read_text())
    settings["options"]["teacher"] = teacher
    (run / "settings.yaml").write_text(yaml.safe_dump(settings))
    (run / "assets").mkdir()
    Image.effect_noise((300, 200), 60).save(run / "assets" / name)
    said = "made by how they look: from" if teacher is None else "made by how they look to vit_small <b>: from"
    assert said in draw(run).text


def test_page_is_self_contained(run: Path) -> None:
    add_pictures(run)
    page = draw(run)
    assert all(link.startswith(("data:", "#")) for link in page.links)
    assert re.search(r"https?://", page.html) is None
    assert "@import" not in page.html
    assert not re.search(r"url\((?!#)", page.html)
    assert page.count("link") == page.count("iframe") == 0
    # What a chart refers to is in the page.
    referred = {link[1:] for link in page.links if link.startswith("#")} | set(
        re.findall(r"url\(#([^)]+)\)", page.html)
    )
    assert referred <= set(page.ids)


def test_page_is_accessible(run: Path) -> None:
    add_pictures(run)
    page = draw(run)
    assert all(found.get("alt") for tag, found in page.elements if tag == "img")
    assert all(f.get("role") == "img" and f.get("aria-label") for tag, f in page.elements if tag == "svg")
    assert page.count("table") == page.count("caption")
    assert page.count("h1") == 1
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert ("html", {"lang": "en"}) in page.elements
    assert any(found.get("name") == "viewport" for _, found in page.elements)
    assert "prefers-color-scheme: dark" in page.html


def test_charts_take_their_colors_from_the_page(run: Path) -> None:
    page = draw(run)
    svgs = "".join(re.findall(r"<svg.*?</svg>", page.html, flags=re.DOTALL))
    assert "var(--accent)" in svgs
    assert "var(--alarm)" in svgs
    assert set(re.findall(r"#[0-9a-f]{6}\b", svgs)) <= {"#ffffff"}
    assert "DejaVu" not in re.sub(r"style=\"[^\"]*\"", "", svgs)


def test_alarm_lines(run: Path) -> None:
    page = draw(run)
    # log 2048 = 7.6246; 98 % and 2 % of it. 0.3 / sqrt(256) = 0.01875, the ideal 1/16.
    assert "alarm above 7.47: uniform answers" in page.text
    assert "alarm below 0.15: one answer for all" in page.text
    assert "alarm below 0.0187: features alike" in page.text
    assert "ideal 1/√D = 0.0625" in page.text


def test_names_are_escaped(run: Path) -> None:
    evil = "<script>alert(1)</script>.jpg"
    (run / "skipped.csv").write_text(f'path,reason\n"{evil}","<b>torn</b> & ""worn"""\n', encoding="utf-8")
    fake_run.write_settings(run, data=evil, method="</title><img src=x onerror=alert(1)>")
    with (run / "events.jsonl").open("w") as stream:
        stream.write(json.dumps({"step": 5, "kind": "alarm", "message": evil}) + "\n")
    page = draw(run)
    assert "<script>alert" not in page.html
    assert "<b>torn" not in page.html
    assert page.count("script") == 1
    assert page.count("img") == 0
    assert f"{evil}" in page.text
    assert '<b>torn</b> & "worn"' in page.text


def test_skipped_files_are_listed_to_fifty(run: Path) -> None:
    rows = "".join(f"images/{number:04}.jpg,empty file\n" for number in range(1234))
    (run / "skipped.csv").write_text("path,reason\n" + rows)
    page = draw(run)
    assert "1,234 files could not be read" in page.text
    assert "images/0049.jpg" in page.text
    assert "images/0050.jpg" not in page.text


def test_odd_images_are_counted_by_what_is_said_of_them(run: Path) -> None:
    """By hand: 7 are skipped for three reasons, 60 and 1 are noted; what a resumed run lists again counts once."""
    folder = RunFolder.open(run)
    folder.skip([(f"a{number}.jpg", "not an image") for number in range(3)])
    folder.skip([("b.jpg", "too large: a file of 3.1 GiB"), ("c.jpg", "too large: a file of 9.0 GiB")])
    notes = [(f"d{number:02}.png", "12 bits in 16: scaled by 12 bits") for number in range(60)]
    folder.note([*notes, ("e.jpg", "JPEG without its end marker: nothing of the picture is missing")])
    folder.close()
    (run / "noted.csv").write_text((run / "noted.csv").read_text() + "d00.png,12 bits in 16: scaled by 12 bits\n")
    page = draw(run)
    # two of fake_run's own: one ends too early, one is not an image
    assert "7 files could not be read and took no part" in page.text
    for said in ("4 not an image", "2 too large", "1 the file ends too early"):
        assert re.search(rf"{said}\b".replace(" ", r"\s+", 1), page.text), said
    assert "61 images were used, and are worth a look" in page.text
    assert re.search(r"60\s+12 bits in 16: scaled by 12 bits", page.text)
    assert re.search(r"1\s+JPEG without its end marker: nothing of the picture is missing", page.text)
    assert "The first 50" in page.text
    assert "all are in noted.csv" in page.text
    assert "d49.png" in page.text
    assert "d50.png" not in page.text


def test_kinds_without_number(run: Path) -> None:
    """A file that is not ours may say something else of each of a million images: the page stays short."""
    (run / "skipped.csv").write_text("path,reason\n" + "".join(f"{n}.jpg,reason {n}\n" for n in range(3000)))
    page = draw(run)
    assert "3,000 files could not be read" in page.text
    assert re.search(r"2,960\s+other", page.text)


def test_undecodable_file_name(run: Path) -> None:
    (run / "skipped.csv").write_bytes(b"path,reason\nimages/\xff\xfe.jpg,empty file\n")
    assert "empty file" in draw(run).text


# -- runs that did not go well ----------------------------------------------------------------------------------------


def test_collapse_is_the_verdict(run: Path) -> None:
    lines = fake_run.lines()
    for line in lines[200:]:
        line["teacher_entropy"] = 7.62
    fake_run.write_lines(run, lines)
    page = draw(run)
    assert "Collapsed" in page.text
    assert "No collapse" not in page.text
    assert "same uniform answer for every image" in page.text
    assert "Step 2,030" in page.text
    assert "lr=0.0003" in page.text


def test_again_is_beside_the_run_wherever_the_report_is_drawn(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = fake_run.lines()
    for line in lines[200:]:
        line["teacher_entropy"] = 7.62
    fake_run.write_lines(run, lines)
    monkeypatch.chdir(run)
    command = judge(find_run(Path())).next_steps[0].command
    assert f"out={run.with_name(run.name + '-2')}" in shlex.split(command)


def test_recovery_is_said(run: Path) -> None:
    lines = fake_run.lines()
    for line in lines[200:220]:
        line["feature_spread"] = 0.001
    fake_run.write_lines(run, lines)
    page = draw(run)
    assert "Recovered" in page.text
    assert "was over by the end" in page.text


def test_loss_that_stays_neither_fell_nor_rose(run: Path) -> None:
    fake_run.write_lines(run, [line | {"loss": 1.00001 + at / 1e6} for at, line in enumerate(fake_run.lines(steps=50))])
    text = " ".join(draw(run).texts)
    assert "It began and ended at 1." in text
    assert "rose from" not in text


def test_loss_that_is_no_number(run: Path) -> None:
    lines = fake_run.lines()
    for line in lines[300:]:
        line["loss"] = math.nan
    fake_run.write_lines(run, lines)
    (run / "handback.json").unlink()
    (run / "headstart.pt").unlink()
    page = draw(run)
    assert "Blown up" in page.text
    assert "Not a number at 200 of 500 logged steps, first at step 3,010" in page.text


def test_a_hand_back_that_dropped_tensors_is_red(run: Path) -> None:
    fake_run.write_hand_back(run, fake_run.LOST)
    page = draw(run)
    assert ("p", {"class": "pill bad"}) in page.elements
    assert "Not handed back whole" in page.text
    # 207 pretrained, two of these lost; the third was not pretrained.
    names = ", ".join(one.name for one in fake_run.LOST)
    assert (
        "205 of 207 backbone tensors arrived pretrained in headstart.pt, but 3 tensors did not arrive as they should: "
        f"{names}. Do not fine-tune from it."
    ) in page.text
    for one in fake_run.LOST:
        assert page.text.count(one.name) == 2, "in the sentence and in the list"
        assert f"{one.name} {one.reason}" in page.text
    assert not any(words.startswith(("yolo ", "headstart compare")) for words in page.codes)
    assert "Fine-tune on your labels" not in page.text
    assert "No collapse" not in page.text


def test_weights_that_are_not_finite_are_named_and_not_resumed(run: Path) -> None:
    led = {"method": "distill", "teacher": "t.pt", "teacher_weights": "w.pt", "proposals": "p.pt"}
    fake_run.write_settings(run, **led)
    content = json.loads((run / "handback.json").read_text())
    (run / "handback.json").write_text(json.dumps({**content, "ok": False, "not_finite": ["model.0.conv.weight"]}))
    page = draw(run)
    assert (
        "207 of 207 backbone tensors arrived pretrained in headstart.pt, but 1 tensor holds a NaN or an infinity: "
        "model.0.conv.weight. Do not fine-tune from it."
    ) in page.text
    assert "Not finite" in page.text
    assert "are missing in headstart.pt" not in page.text
    assert not any("resume" in words for words in page.codes)
    (again,) = [words for words in page.codes if words.startswith("headstart pretrain")]
    asked = parse(again.split()[1:])
    assert asked is not None
    meant = collect(values(asked.command, asked.given), [])
    assert {**led, "global_scale": [0.4, 1.0], "data": "airfield/images"}.items() <= meant.items()
    assert (meant["lr"], meant["lr_for"]) == (0.0003, None)


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("origin", ["yolo11n.pt", None])
def test_a_run_of_an_object_in_memory_is_suggested_as_it_can_be_repeated(
    run: Path, origin: str | None, kept: bool
) -> None:
    """From the detector that the run keeps, else from where it came; no command where neither is known."""
    model = {"in_memory": "YOLO", "origin": origin}
    fake_run.write_settings(run, model=model)
    content = json.loads((run / "handback.json").read_text())
    (run / "handback.json").write_text(json.dumps({**content, "ok": False, "not_finite": ["model.0.conv.weight"]}))
    if kept:
        (run / "start.pt").write_bytes(b"")
    page = draw(run)
    again = [words for words in page.codes if words.startswith("headstart pretrain")]
    if kept or origin:
        asked = parse(again[0].split()[1:])
        assert asked is not None
        meant = collect(values(asked.command, asked.given), [])
        assert meant["model"] == (str((run / "start.pt").resolve()) if kept else origin)
        assert meant["data"] == "airfield/images"
    else:
        assert again == []
        assert "Of this run model was an object in memory, which no command can name" in page.text
        assert "lr=0.0003, lr_for=None" in page.text
    assert page.text.count("in_memory") == page.text.count("model.in_memory") == 1, "in the table of settings alone"


def test_what_arrived_is_counted_and_not_what_was_trained(run: Path) -> None:
    assert "207 of 207 backbone tensors went back into headstart.pt" in draw(run).text
    content = json.loads((run / "handback.json").read_text())
    (run / "handback.json").write_text(json.dumps({**content, "ok": False}))
    page = draw(run)
    assert "Not handed back whole" in page.text, "its own word counts, whatever it names"
    assert "arrived pretrained in headstart.pt, but the check failed." in page.text


@pytest.mark.parametrize("name", ["it's mine; rm -rf ~", 'a"b $(id)', "two  words"])
def test_commands_can_be_copied_whatever_the_folder_is_called(tmp_path: Path, name: str) -> None:
    run = fake_run.write_run(tmp_path / name)
    settings = yaml.safe_load((run / "settings.yaml").read_text())
    settings["resolved"]["detector"] |= {"name": "n; reboot", "task": "detect$(id)"}
    (run / "settings.yaml").write_text(yaml.safe_dump(settings))
    tune, compare = (shlex.split(code) for code in draw(run).codes[:2])
    assert tune[:4] == ["yolo", "detect$(id)", "train", "data=your.yaml"]
    assert (Path.cwd() / tune[4].removeprefix("model=")).resolve() == (run / "headstart.pt").resolve()
    assert compare[:4] == ["headstart", "compare", "data=your.yaml", "model=n; reboot"]
    assert (Path.cwd() / compare[4].removeprefix("starts=scratch,coco,ssl=")).resolve() == run.resolve()


def test_who_led_the_training_is_said(run: Path) -> None:
    assert ", without a label, for 5,000 steps" in draw(run).text
    fake_run.write_settings(run, teacher="vit_small", proposals="yolo11n.pt")
    text = draw(run).text
    assert ", led by teacher=vit_small and proposals=yolo11n.pt, for 5,000 steps" in text
    assert "without a label" not in text


def test_only_losses_that_are_no_number(run: Path) -> None:
    fake_run.write_lines(run, [line | {"loss": math.inf} for line in fake_run.lines(100)])
    page = draw(run)
    assert "Blown up" in page.text
    assert "Not a number at 10 of 10 logged steps" in page.text


def test_interrupted_run(tmp_path: Path) -> None:
    run = tmp_path / "my runs" / "one"
    fake_run.write_settings(run)
    fake_run.write_lines(run, fake_run.lines()[:150])
    with (run / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 1510, "loss": 2.')
    page = draw(run)
    assert "Not finished" in page.text
    assert "1,500 of 5,000 steps" in page.text
    (words,) = [words for words in map(shlex.split, page.codes) if "resume=true" in words]
    assert words[:3] == ["headstart", "pretrain", "resume=true"]
    assert (Path.cwd() / words[3].removeprefix("out=")).resolve() == run.resolve()
    assert "The pictures are drawn at the end" in page.text


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_few_logged_steps(tmp_path: Path, count: int) -> None:
    run = tmp_path / "run"
    fake_run.write_settings(run)
    fake_run.write_lines(run, fake_run.lines()[:count])
    page = draw(run)
    assert all(f"chart-{name}" in page.ids for name in CHARTS[:6])
    assert page.count("svg") == (2 * len(CHARTS) if count else 0)
    if not count:
        assert "Nothing logged yet" in page.text


def test_short_finished_run_is_not_called_healthy(run: Path) -> None:
    fake_run.write_lines(run, fake_run.lines(60))
    page = draw(run)
    assert "Too short to judge" in page.text
    assert "No collapse" not in page.text.split("What to do next")[0]


FILES = ("settings.yaml", "metrics.jsonl", "handback.json", "skipped.csv", "events.jsonl")


@pytest.mark.parametrize("name", FILES[:4])
def test_any_file_may_be_missing(run: Path, name: str) -> None:
    (run / name).unlink()
    assert draw(run).count("h1") == 1


@pytest.mark.parametrize(
    "content", [b"", b"\x00\xff{[", b"[1, 2]\n", b'{"step": "x", "options": 3, "parts": [7], "message": 5}\n']
)
@pytest.mark.parametrize("but", ["metrics.jsonl", "settings.yaml"])
def test_files_may_be_broken(run: Path, content: bytes, but: str) -> None:
    for name in FILES:
        if name != but:
            (run / name).write_bytes(content)
    assert draw(run).count("h1") == 1


@pytest.mark.parametrize("name", ["views.png", "probe.json"])
def test_broken_assets(run: Path, name: str) -> None:
    add_pictures(run)
    (run / "assets" / name).write_bytes(b"\x89PNG nothing")
    assert draw(run).count("img") == (2 if name == "views.png" else 3)


def test_a_method_that_logs_neither_entropy_nor_spread(run: Path) -> None:
    keep = ("step", "loss", "lr", "images_per_second", "seconds")
    fake_run.write_lines(run, [{name: line[name] for name in keep} for line in fake_run.lines()])
    page = draw(run)
    assert "a collapse would not be seen" in page.text
    assert page.count("svg") == 2 * 3


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run"):
        write_report(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        write_report(tmp_path / "missing")


def test_a_step_logged_again_after_a_resume_counts_once(run: Path) -> None:
    first, again = fake_run.lines()[:120], fake_run.lines()[100:]
    for line in again:
        line["seconds"] -= again[0]["seconds"] - 1
        line["loss"] = 1.5
    fake_run.write_lines(run, first + again)
    found = find_run(run)
    assert (np.diff(found.column("step")) > 0).all()
    assert found.column("loss")[110] == 1.5
    # 100 lines of the first part, then the second part's own clock.
    assert found.seconds == pytest.approx(1000 * 64 / 600 + again[-1]["seconds"])


def test_a_hundred_thousand_lines_make_a_small_page(run: Path) -> None:
    fake_run.write_lines(run, fake_run.lines(steps=100_000, every=1))
    assert len(draw(run).html) < 600_000


# -- charts -----------------------------------------------------------------------------------------------------------


def test_thinning_keeps_the_extremes_the_ends_and_the_gaps() -> None:
    steps = np.arange(100_000, dtype=np.float64)
    values = np.random.default_rng(0).normal(size=100_000)
    values[12_345], values[54_321], values[77_777] = 99, -99, np.nan
    few_steps, few = charts.thin(steps, values)
    assert len(few) <= 400
    assert {0, 12_345, 54_321, 77_777, 99_999} <= set(few_steps)
    assert np.nanmax(few) == 99
    assert np.nanmin(few) == -99
    assert (np.diff(few_steps) > 0).all()
    assert (np.isnan(few) == np.isnan(values[few_steps.astype(int)])).all()


def test_short_lines_are_not_thinned() -> None:
    steps = np.arange(50, dtype=np.float64)
    assert charts.thin(steps, steps)[0] is steps


def test_smoothing_is_a_running_mean_that_skips_gaps() -> None:
    values = np.arange(80, dtype=np.float64)
    values[40] = np.nan
    smoothed = charts.smooth(values)
    # Two to each side.
    assert smoothed[10] == pytest.approx(10)
    assert smoothed[0] == pytest.approx(1)
    assert smoothed[41] == pytest.approx((39 + 41 + 42 + 43) / 4)
    assert np.isnan(smoothed[40])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.001, "0.001"),
        (0.000123, "0.000123"),
        (12.345, "12.3"),
        (5948, "5,948"),
        (math.nan, "not a number"),
    ],
)
def test_numbers_for_people(value: float, text: str) -> None:
    assert charts.number(value) == text


def test_report_does_without_torch(run: Path) -> None:
    code = (
        "import sys; from headstart.report import write_report; "
        f"write_report({str(run)!r}); print([m for m in ('torch', 'ultralytics', 'lightly') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_what_to_do_next_is_what_the_detectors_family_says(run: Path) -> None:
    """A torchvision detector's file is none of Ultralytics', and a comparison names it with its prefix."""
    content = yaml.safe_load((run / "settings.yaml").read_text())
    command = "model = retinanet(); model.load_state_dict(torch.load('RUN/headstart.pt', weights_only=True))"
    content["resolved"]["detector"] |= {"architecture": "torchvision:retinanet_resnet50_fpn", "train": command}
    (run / "settings.yaml").write_text(yaml.safe_dump(content))
    page = draw(run)
    assert command.replace("RUN", str(run)) in page.codes
    (compare,) = [words for words in page.codes if words.startswith("headstart compare")]
    assert "model=torchvision:retinanet_resnet50_fpn" in compare.split()
    assert not any(words.startswith("yolo ") for words in page.codes)
