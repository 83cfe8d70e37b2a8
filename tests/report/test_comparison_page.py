from __future__ import annotations

import errno
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_comparison
import fake_run
import pytest
from fake_comparison import scored
from test_pretraining_page import Page

from headstart import cli
from headstart.comparison.records import ClassScore, Point, Results
from headstart.comparison.results import read_results
from headstart.comparison.wording import few_objects, points
from headstart.errors import UserError
from headstart.files import explained
from headstart.report import comparison_page, is_comparison, write_report
from headstart.report.cards import comparison_card
from headstart.report.comparison_charts import _two_lines, budgets, classes, curves, differences
from headstart.report.comparison_page import _detectors, _longer
from headstart.report.rendering import environment
from headstart.report.series import COLORS, _dash_of, shape_of

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("comparison") / "airfield"
    fake_comparison.write_comparison(path)
    write_report(path)
    return path


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page(folder / "report.html")


def test_every_part_is_there(page: Page) -> None:
    wanted = {"verdict", "outcome", "learning", "reached", "classes", "detections", "fair", "settings"}
    assert wanted <= set(page.ids)
    charts = {one.removeprefix("chart-") for one in page.ids if one.startswith("chart-")}
    assert charts == {
        "budgets",
        "differences",
        "labels-saved",
        "curve-0",
        "curve-1",
        "curve-2",
        "classes-0",
        "classes-1",
    }


def test_it_opens_offline_and_follows_light_and_dark(page: Page) -> None:
    assert all(link.startswith(("#", "data:image/")) for link in page.links)
    assert "http" not in re.sub(r'xmlns(:xlink)?="[^"]*"', "", page.html)
    assert "prefers-color-scheme: dark" in page.html
    assert not re.findall(r"(?:fill|stroke): #0[0-9a-f]{5}", page.html), "a stand-in color was left"
    assert {f"var(--s{at})" for at in range(5)} <= set(re.findall(r"var\(--s\d\)", page.html))


def test_the_figures_are_those_of_the_json(folder: Path, page: Page) -> None:
    results = read_results(folder)
    text = " ".join(" ".join(page.texts).split())
    assert " ".join(results.verdict.split()) in text
    for one in results.scores:
        assert f"{one.map50_95.mean:.3f}" in text
    cells = results.of("coco", "5%")
    assert f"coco {sum(c.measured.map50_95 for c in cells) / 3:.3f}" in text, "the end of a learning curve"
    one = next(one for one in results.differences if one.reference == "coco" and one.budget == "1%")
    for end in ("t_low", "t_high", "bootstrap_low", "bootstrap_high"):
        shown = getattr(one.map50_95, end) * 100
        digits = 1 if abs(shown) >= 1 else 2
        assert f"{shown:+.{digits}f}".replace("-", "−") in text, end
    assert "label <old>" in text
    assert "label &lt;old&gt;" in page.html, "names are escaped"


def test_every_chart_says_what_it_shows(page: Page) -> None:
    pictures = [attributes for tag, attributes in page.elements if tag == "svg" and attributes.get("role") == "img"]
    assert len(pictures) == 8 * 2 + 2 * 6
    assert all(attributes["aria-label"] for attributes in pictures)


def test_the_same_images_for_every_start(page: Page) -> None:
    used = [str(attributes["href"]) for tag, attributes in page.elements if tag == "use" and "photo" in str(attributes)]
    assert used == ["#photo-0"] * 6 + ["#photo-1"] * 6, "the labels and five starts, two images"
    assert page.html.count("data:image/jpeg") == 2


def test_whose_boxes_are_shown() -> None:
    shown = fake_comparison.detections(["coco"])
    assert _detectors(shown) == "the detectors of the largest budget and the first seed"
    shown = shown.model_copy(update={"budget": "20%", "seed": 3})
    assert _detectors(shown) == "the detectors of 20% of the labels, seed 3,"


def test_failed_checks_failed_trainings_and_single_seeds_are_said(tmp_path: Path) -> None:
    cell = fake_comparison.cell
    twins = [cell("coco", "5%", 0)]
    same = {"curve": twins[0].measured.curve, "map50_95": twins[0].measured.map50_95}
    twins.append(cell("coco", "5%", 1, rows_sha256=twins[0].measured.rows_sha256, **same))
    broken = cell("scratch", "5%", 1, state="failed", figures=None, error="out of memory <script>")
    fake_comparison.write_comparison(
        tmp_path, starts=["scratch", "coco"], seeds=[0, 1], cells=[*twins, cell("scratch", "5%", 0), broken]
    )
    (tmp_path / "detections.json").unlink()
    page = Page(write_report(tmp_path))
    assert "Not to be trusted" in page.text
    assert "the seed changed nothing" in page.text
    assert "out of memory <script>" in page.text
    assert "one seed" in page.text
    assert "detections" not in page.ids


def rows_of(page: Page) -> dict[str, tuple[str, str]]:
    """Claim -> outcome and evidence, as the page shows them."""
    table = re.search(r'<table class="checks".*?</table>', page.html, re.DOTALL)
    assert table
    rows = re.findall(r"<tr><td>(.*?)</td><td[^>]*>(.*?)</td><td>(.*?)</td></tr>", table[0])
    return {claim: (outcome, evidence) for claim, outcome, evidence in rows}


def test_was_it_fair_says_what_the_facts_say(page: Page, folder: Path) -> None:
    shown = rows_of(page)
    assert len(shown) == len(read_results(folder).checks) == 17
    assert {outcome for outcome, _ in shown.values()} == {"passed"}
    assert "All that follows" not in page.text
    assert shown["The start arrived whole in every training"][1].startswith("499 tensors bitwise equal")
    assert "Inconclusive" in page.text, "against COCO; it is far better than scratch"
    assert "failed-checks" not in page.ids


def test_nothing_is_claimed_under_a_failed_check(tmp_path: Path) -> None:
    cells = fake_comparison.every_cell(["scratch", "coco"], [0, 1, 2])
    cells[0] = fake_comparison.cell("scratch", "1%", 0, labels_sha256="other", settings_sha256="other")
    fake_comparison.write_comparison(tmp_path, starts=["scratch", "coco"], cells=cells)
    page = Page(write_report(tmp_path))
    shown = rows_of(page)
    failed = {claim for claim, (outcome, _) in shown.items() if outcome == "failed"}
    assert failed == {
        "At each budget and seed, every start has the same labelled images",
        "Every training is given the same image size, batch, augmentation and optimizer",
    }
    assert ("p", {"class": "pill bad"}) in page.elements
    assert "All that follows is computed from trainings that failed the checks above." in page.text
    assert {tag for tag, found in page.elements if found.get("class") == "tag bad"} == {"td"}
    assert sum(found.get("class") == "tag bad" for _, found in page.elements) == 2, "of checks; no difference is tinted"
    assert "These figures cannot be trusted: at 1%, seed 0, the starts were trained on different" in page.text
    assert not re.search(r"\b(better|worse) (at|\[)", page.text), "no verdict on any difference"
    assert page.text.count("not trusted") == 3
    for claim in failed:
        assert page.text.count(claim) == 1 + 1 + 1, "among the failed checks, in the table, and in the Markdown"


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        # Means over the seeds: coco 0.2, 0.4, 0.5, nine tenths of the last 0.45; dino 0.3, 0.46, 0.48.
        (
            {"coco": [[0.1, 0.3, 0.4], [0.3, 0.5, 0.6]], "dino": [[0.3, 0.46, 0.48]], "coco+dino": [[0.4, 0.44, 0.3]]},
            "Epoch at which 90% of where coco ends is reached: coco 3, dino 2, coco+dino never.",
        ),
        ({"scratch": [[0.1, 0.2]], "coco": [[0.2, 0.3]]}, None),
        ({"coco": [[0.0, 0.0]], "dino": [[0.0, 0.1]]}, None),
        ({"dino": [[0.0, 0.1]]}, None),
    ],
)
def test_how_soon_a_start_is_nearly_as_good_as_coco_in_the_end(
    scores: dict[str, list[list[float]]], said: str | None
) -> None:
    cells = [
        fake_comparison.cell(
            start, "5%", seed, epochs=len(curve), curve=[Point(at, 0.0, one, one) for at, one in enumerate(curve, 1)]
        )
        for start, curves in scores.items()
        for seed, curve in enumerate(curves)
    ]
    note = curves(fake_comparison.results(starts=list(scores), cells=cells))[0].note
    assert ("Epoch at which" in note) == (said is not None)
    assert said is None or said in note


def test_with_one_label_budget_there_is_no_most() -> None:
    cells = [fake_comparison.cell(start, "5%", 0, map50_95=at) for start, at in (("scratch", 0.3), ("coco", 0.5))]
    found = fake_comparison.results(starts=["scratch", "coco"], seeds=[0], cells=cells)
    only = tuple(one for one in found.budgets if one.name == "5%")
    note = budgets(found.model_copy(update={"budgets": only}), "budgets").note
    assert note.endswith(" With these labels, coco is highest, at 0.500.")


@pytest.mark.parametrize(
    ("done", "said"),
    [
        ({"scratch": 0.3, "coco": None}, " With the most labels, scratch alone was trained, to 0.300."),
        ({"scratch": 0.3002, "coco": 0.3004}, " With the most labels, all are at 0.300."),
        ({"scratch": 0.3, "coco": 0.5}, " With the most labels, coco is highest, at 0.500."),
        (
            {"scratch": 0.3, "coco": 0.5, "dino": None},
            " With the most labels, coco is highest of the 2 that were trained there, at 0.500.",
        ),
        (
            {"scratch": 0.3002, "coco": 0.3004, "dino": None},
            " With the most labels, scratch and coco are at 0.300.",
        ),
        ({"scratch": None, "coco": None}, ""),
    ],
)
def test_the_highest_with_the_most_labels_was_trained_with_them(done: dict[str, float | None], said: str) -> None:
    """A start without a figure there has a high one with fewer labels: it is not compared with what others have."""
    cells = [fake_comparison.cell(start, "5%", 0, map50_95=0.9) for start in done]
    cells += [fake_comparison.cell(start, "20%", 0, map50_95=score) for start, score in done.items() if score]
    note = budgets(fake_comparison.results(starts=list(done), seeds=[0], cells=cells), "b").note
    assert note == f"Score over the number of labelled images.{said}"


def test_what_the_longer_scratch_run_is_longer_than() -> None:
    """Than scratch's own trainings: a start that is fine-tuned for longer has other epochs, and may come first."""
    cell = fake_comparison.cell
    cells = [cell("coco-longer", "20%", 0, epochs=60), cell("scratch", "20%", 0), cell("selftrain", "20%", 0)]
    longer = cell("scratch", "20%", 0, epochs=80, kind="longer")
    starts = ["coco-longer", "scratch", "selftrain"]
    content = fake_comparison.results(starts=starts, seeds=[0], cells=[*cells, longer])
    assert "Scratch with the steps that pretraining took: 80 epochs in place of 20 gave" in _longer(content)
    content = fake_comparison.results(starts=starts, seeds=[0], cells=[cells[0], longer])
    assert "80 epochs gave" in _longer(content), "scratch itself failed"


def test_on_a_phone_a_difference_has_two_lines_where_one_is_too_short() -> None:
    assert _two_lines("5%: dino − scratch") == "5%: dino − scratch"
    assert _two_lines("20%: selftrain − scratch-longer") == "20%: selftrain\n− scratch-longer"
    assert _two_lines("20%: " + "long" * 9 + " − coco") == "20%: longlon…onglonglong\n− coco"


@pytest.mark.parametrize("size", [0, 1])
def test_long_names_can_be_told_apart_and_keep_their_budget(size: int) -> None:
    """A start without a name of its own is called by its folder; classes are often told apart by their last word."""
    names = ["coco", "selftrain-yolo11n-airfield-2025-11-03-first", "selftrain-yolo11n-airfield-2025-11-03-second"]
    worth = {**fake_comparison.WORTH, **dict.fromkeys(names, (0.1, 0.2, 0.3, 4.0))}
    named = ["a_rather_long_class_name_of_a_bolt_left", "a_rather_long_class_name_of_a_bolt_right"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fake_comparison, "WORTH", worth)
        patch.setattr(fake_comparison, "NAMES", named)
        found = fake_comparison.results(starts=names, seeds=[0, 1], cells=fake_comparison.every_cell(names, [0, 1]))
    for chart in [differences(found), *classes(found)]:
        drawn = chart.narrow if size else chart.wide
        assert drawn is not None
        labels = re.findall(r"<text[^>]*>([^<]*…[^<]*)</text>", drawn)
        assert labels
        assert all(len(label) <= 40 for label in labels)
        assert len(set(labels)) == len(labels), "two are alike"


def test_a_comparison_without_anything_done(tmp_path: Path) -> None:
    fake_comparison.write_comparison(tmp_path, cells=[])
    assert "Nothing can be compared yet" in " ".join(Page(write_report(tmp_path)).texts)


def test_the_command_draws_either_kind_and_several_side_by_side(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    fake_comparison.write_comparison(other, starts=["scratch", "dino"], name="second")
    out = tmp_path / "both.html"
    assert is_comparison(other)
    assert cli.main(["report", str(folder), str(other), f"out={out}"]) == 0
    assert capsys.readouterr().out.split() == [str(folder / "report.html"), str(other / "report.html"), str(out)]
    page = Page(out)
    text = " ".join(" ".join(page.texts).split())
    assert "2 comparisons" in text
    assert "airfield" in text
    assert "second" in text
    assert {"chart-side0", "chart-side1"} <= set(page.ids)
    with pytest.raises(UserError, match="holds no run"):
        write_report(tmp_path)


def test_a_page_can_be_drawn_of_folders_that_cannot_be_written_to(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else's: shared, read-only. Root may write everywhere, so it is the writing that is refused."""
    shared, write = [str(folder), str(tmp_path / "other")], comparison_page.write_text
    fake_comparison.write_comparison(tmp_path / "other", starts=["scratch", "dino"], name="second")

    def refused(path: Path, text: str) -> None:
        if str(path.parent) in shared:
            with explained(path):
                raise PermissionError(errno.EACCES, "Permission denied")
        write(path, text)

    monkeypatch.setattr(comparison_page, "write_text", refused)
    assert cli.main(["report", shared[0], f"out={tmp_path / 'mine.html'}"]) == 0
    assert "airfield" in (tmp_path / "mine.html").read_text()
    assert cli.main(["report", *shared, f"out={tmp_path / 'both.html'}"]) == 0
    said = capsys.readouterr()
    assert said.out.split() == [str(tmp_path / "mine.html"), str(tmp_path / "both.html")]
    assert said.err.count("no permission to write here") == 2
    assert cli.main(["report", shared[0]]) != 0
    assert "out=" not in capsys.readouterr().err


def test_a_folder_may_have_a_comma_in_its_name(tmp_path: Path) -> None:
    fake_comparison.write_comparison(tmp_path / "a,b", starts=["scratch", "dino"], name="second")
    assert cli.main(["report", str(tmp_path / "a,b")]) == 0


@pytest.mark.parametrize(
    ("verdicts", "missing", "said"),
    [
        (["worse", "inconclusive"], False, ("warn", "Worse in part")),
        (["worse", "worse"], False, ("bad", "Worse")),
        (["worse", "better"], False, ("warn", "Mixed")),
        (["better", "inconclusive"], False, ("good", "Better in part")),
        (["inconclusive"], True, ("warn", "Inconclusive, not complete")),
        (["worse"], True, ("bad", "Worse, not complete")),
        ([], False, ("calm", "Nothing compared")),
        ([], True, ("warn", "Nothing compared, not complete")),
    ],
)
def test_the_word_of_the_verdict(
    verdicts: list[str], missing: bool, said: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [SimpleNamespace(reference="coco", map50_95=SimpleNamespace(verdict=one)) for one in verdicts]
    monkeypatch.setattr(comparison_page.wording, "headline", lambda results: found)
    results: Any = SimpleNamespace(trusted=True, failed_checks=[1] if missing else [])
    assert comparison_page.tone(results) == said


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ((0.05, -0.05, 0.01), ("calm", "Inconclusive")),  # better than scratch alone, as COCO's weights are
        ((-0.100, -0.101, -0.102), ("bad", "Worse")),
        ((0.100, 0.101, 0.102), ("good", "Better")),
    ],
)
def test_the_word_is_about_the_start_that_is_measured_against(
    points: tuple[float, ...], said: tuple[str, str], tmp_path: Path
) -> None:
    """Far better than scratch each time; page, card and pages side by side show the same."""
    worth = {"scratch": (0.1, 0.12, 0.115), "coco": (0.4, 0.41, 0.42)}
    worth["dino"] = tuple(one + more for one, more in zip(worth["coco"], points, strict=True))
    cells = [
        cell
        for start, scores in worth.items()
        for budget in fake_comparison.BUDGETS
        for cell in scored(start, budget, list(scores))
    ]
    content = fake_comparison.write_comparison(tmp_path, starts=list(worth), cells=cells)
    found = {one.reference: one.map50_95.verdict for one in content.differences if one.start == "dino"}
    assert found["scratch"] == "better"
    assert comparison_page.tone(content) == said
    pill = f'<p class="pill {said[0]}">{said[1]}</p>'
    for page in (write_report(tmp_path).read_text(), comparison_card(tmp_path, content)):
        assert pill in page
    assert pill in comparison_page.write_side_by_side([tmp_path, tmp_path], tmp_path / "both.html").read_text()


def test_comparisons_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """By the end of the path from which they differ; the same one twice has its own name twice."""
    for folder in ("first/run", "second/run"):
        fake_comparison.write_comparison(tmp_path / folder, starts=["scratch", "dino"], name="run")
    folders = [tmp_path / "first/run", tmp_path / "second/run"]
    text = " ".join(Page(comparison_page.write_side_by_side(folders, tmp_path / "both.html")).texts)
    assert "first/run" in text
    assert "second/run" in text
    assert str(tmp_path) not in text
    twice = " ".join(Page(comparison_page.write_side_by_side(folders[:1] * 2, tmp_path / "twice.html")).texts)
    assert "first/run" not in twice


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (None, "–"),
        (0.0, "+0.00"),
        (0.00002, "+0.002"),
        (-0.00004, "−0.004"),
        (-0.0002, "−0.02"),
        (0.00996, "+1.00"),
        (0.0123, "+1.2"),
        (-0.05, "−5.0"),
    ],
)
def test_points_that_are_not_zero_do_not_look_so(share: float | None, said: str) -> None:
    assert points(share) == said


def test_steps_are_called_batches() -> None:
    """They are rounded up to whole epochs, and an update of Ultralytics takes several."""
    content = fake_comparison.results(starts=["coco"], seeds=[0])
    told = content.settings.model_copy(update={"steps": 2500, "epochs": None})
    assert comparison_page.setup(content.model_copy(update={"settings": told})) == (
        "yolo11n on fod-a.yaml, at least 2,500 batches at 320 px, batch 16, AdamW"
    )


def test_trainings_that_were_not_begun_are_missing() -> None:
    """Of a comparison that was stopped: they are no cells."""
    cells = fake_comparison.every_cell(["scratch", "coco"], [0])
    content = fake_comparison.results(starts=["scratch", "coco"], seeds=[0, 1], cells=cells)
    (told,) = [remark for name, value, remark in comparison_page.facts(content) if name == "Trainings"]
    assert told == f"{len(content.budgets) * 4 - len(cells)} failed or missing"


def test_a_comparison_that_was_killed_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "compare.yaml").write_text("data: my.yaml\n")
    assert is_comparison(tmp_path)
    with pytest.raises(
        UserError, match=r"there is no results.json\n  -> this comparison has not come to its end: call"
    ):
        write_report(tmp_path)


def test_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"format": 99}')
    with pytest.raises(UserError, match="is of format 99; this version reads formats 1 and 2"):
        write_report(tmp_path)


def chromium(page: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as profile:
        quiet = ("gpu", "quic", "background-networking", "component-update", "sync")
        flags = ["--headless", "--no-sandbox", "--no-first-run", *(f"--disable-{one}" for one in quiet)]
        flags += [f"--user-data-dir={profile}", "--enable-logging=stderr", "--virtual-time-budget=3000"]
        command = [CHROMIUM, *flags, *arguments, page.as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


PROBE = """<script>
const wide = [...document.querySelectorAll("body *")].filter(one => !one.closest(".scroll-x, .store, svg")
  && one.getBoundingClientRect().right > innerWidth + 1);
const shown = [...document.querySelectorAll(".chart svg")].filter(one => one.getBoundingClientRect().height > 50);
document.title = JSON.stringify([innerWidth, wide.length, shown.length, document.querySelectorAll("image").length]);
</script></body>"""


# A browser's window is 500 pixels wide at least: a phone's page is looked at in a frame of that width.
FRAME = """<iframe src="page.html" style="width: {width}px; height: 2000px; border: 0"></iframe>
<script>onload = () => {{ document.title = document.querySelector("iframe").contentDocument.title }}</script>"""


@pytest.mark.skipif(not CHROMIUM, reason="needs chromium, which is not on this machine")
@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("kind", ["comparison", "pretraining"])
def test_a_browser_shows_it_without_errors(folder: Path, tmp_path: Path, width: int, kind: str) -> None:
    if kind == "pretraining":
        folder = fake_run.write_run(tmp_path / "run")
        fake_run.write_hand_back(folder, fake_run.LOST)
        write_report(folder)
    html = (folder / "report.html").read_text()
    (tmp_path / "page.html").write_text(html.replace("</body>", PROBE))
    frame = tmp_path / "frame.html"
    frame.write_text(f"<title>frame</title><body>{FRAME.format(width=width)}</body>")
    done = chromium(frame, "--dump-dom", "--allow-file-access-from-files", "--window-size=1300,2000")
    errors = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not errors
    title = re.search(r"<title>(\[.*?\])</title>", done.stdout)
    assert title
    seen, too_wide, charts, images = json.loads(title[1])
    assert seen == width
    assert too_wide == 0, "something reaches over the right edge"
    assert (charts, images) == {"comparison": (8, 2), "pretraining": (7, 0)}[kind]


def test_classes_with_few_test_objects_are_named() -> None:
    def results(*objects: int) -> Results:
        def scores(*counts: int) -> tuple[ClassScore, ...]:
            named = enumerate(counts)
            return tuple(ClassScore(name=f"c{at}", map50_95=0.1, map50=0.1, objects=count) for at, count in named)

        searched = fake_comparison.cell("coco", "5%", 0, kind="search", class_scores=scores(1))  # on other images
        failed = fake_comparison.cell("scratch", "5%", 0, state="failed", figures=None)
        cells = [searched, failed, fake_comparison.cell("coco", "5%", 0, class_scores=scores(*objects))]
        return fake_comparison.results(starts=["scratch", "coco"], cells=cells)

    # One object of n is 1 / n of a class's AP and 1 / (4 n) of the mAP: 8.3, 2.5, 0.83 and 0.13 points.
    assert few_objects(results(30, 3, 200, 10)) == (
        "2 of 4 classes have so few test objects (c1 3, c3 10) that a single one, found or missed, moves mAP50-95 by "
        "about a point or more, up to 8.3: more test images make these figures firmer"
    )
    assert few_objects(results(30, 40, 200, 26)) is None
    assert "(c0 1, c1 1, c2 1, c3 1, c4 1 and others)" in (few_objects(results(*[1] * 7)) or "")
    assert few_objects(fake_comparison.results(cells=[])) is None


def test_thirty_starts_can_be_told_apart() -> None:
    """Eight colors, and for those of one color another mark, in charts and legend alike, and other dashes."""
    assert len({(index % COLORS, shape_of(index)) for index in range(30)}) == 30
    assert len({(index % COLORS, str(_dash_of(index))) for index in range(30)}) == 30
    names = ["coco", *(f"own{number}" for number in range(29))]
    worth = {**fake_comparison.WORTH, **dict.fromkeys(names, (0.1, 0.2, 0.3, 4.0))}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fake_comparison, "WORTH", worth)
        cells = [fake_comparison.cell(name, "1%", seed) for name in names for seed in (0, 1)]
        found = fake_comparison.results(starts=names, seeds=[0, 1], cells=cells)
    legend = environment().from_string('{% from "comparison_parts.html.j2" import legend_of %}{{ legend_of(legend) }}')
    marks = re.findall(r"<svg.*?</svg>", legend.render(legend=comparison_page.legend(found)), re.DOTALL)
    assert len(set(marks)) == 30
    assert marks[8] != marks[0]
    assert "var(--s0)" in marks[8]
    assert "var(--s8)" not in "".join(marks)
