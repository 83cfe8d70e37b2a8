"""The cards of a notebook, from the files that a run and a comparison leave."""

from __future__ import annotations

import base64
import io
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fake_comparison import write_comparison
from fake_run import write_hand_back, write_run
from PIL import Image

from headstart.detectors.handback import Dropped
from headstart.jobs.compare import Comparison
from headstart.jobs.ending import Run
from headstart.report import write_report

HOSTILE = "javascript:a<img src=x onerror=alert(1)>'&"


class Tags(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def draw(path: Path, width: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, width // 2), (200, 80, 40)).save(path)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    folder = write_run(tmp_path / "runs" / HOSTILE)
    (folder / "report.html").write_text("the report")
    return Run(folder, folder / "headstart.pt", None, 5000, interrupted=False)


def test_what_a_run_came_to_and_its_main_pictures(run: Run) -> None:
    for name, width in {"views": 300, "neighbours": 400, "components": 2000}.items():
        draw(run.folder / "assets" / f"{name}.png", width)
    page = run._repr_html_()
    assert page is not None
    found = Tags(page)
    assert "5,948 images" in found.text
    assert "207 of 207 backbone tensors" in found.text
    assert "320,000 images seen" in found.text
    pictures = found.of("img")
    assert [one["alt"] for one in pictures] == [  # two, those that say the most
        "Sheet of query images and their five nearest neighbours",
        "Sheet of images, each beside the principal components of its feature map in color",
    ]
    sizes = []
    for one in pictures:
        head, data = str(one["src"]).split(",", 1)
        assert head in ("data:image/webp;base64", "data:image/png;base64")
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            sizes.append(picture.size)
            assert picture.size == (int(str(one["width"])), int(str(one["height"])))
    assert sizes == [(400, 200), (820, 410)]


def test_a_name_is_a_name(run: Run) -> None:
    page = run._repr_html_()
    assert page is not None
    found = Tags(page)
    assert HOSTILE in found.text
    assert not found.of("img")
    assert not found.of("script")
    links = [str(one["href"]) for one in found.of("a")]
    assert len(links) == 1
    assert re.fullmatch(r"\./runs/javascript%3Aa%3Cimg[\w%./-]*/report\.html", links[0])


def test_a_folder_whose_name_is_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page and a card are UTF-8, whatever bytes the name has; the link leads to them."""
    monkeypatch.chdir(tmp_path)
    folder = write_run(tmp_path / os.fsdecode(b"r\xff"))
    page = write_report(folder).read_text(encoding="utf-8")
    assert "r\\udcff" in page
    card = Run(folder, None, None, 5000, interrupted=False)._repr_html_()
    assert card is not None
    card.encode("utf-8")
    (link,) = [one for one in Tags(card).of("a") if "report" in str(one["href"])]
    assert link["href"] == "./r%FF/report.html"
    assert "r\\udcff/report.html" in Tags(card).text
    write_comparison(tmp_path / os.fsdecode(b"c\xff"))
    write_report(tmp_path / os.fsdecode(b"c\xff")).read_text(encoding="utf-8")


def test_a_report_that_no_notebook_serves_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    elsewhere = Path("/tmp/none")
    monkeypatch.setattr(Path, "cwd", lambda: elsewhere)
    page = run._repr_html_()
    assert page is not None
    assert not Tags(page).of("a")
    assert str(run.folder / "report.html") in Tags(page).text


def test_weights_that_did_not_arrive(run: Run) -> None:
    write_hand_back(run.folder, (Dropped("model.0.conv.weight", "backbone", True, "has other values"),))
    page = run._repr_html_()
    assert page is not None
    assert 'class="pill bad"' in page
    assert "Not handed back whole" in page


def test_a_folder_that_is_gone_has_no_card(tmp_path: Path) -> None:
    assert Run(tmp_path / "none", None, None, 1, interrupted=True)._repr_html_() is None


def test_a_comparison(tmp_path: Path) -> None:
    content = write_comparison(tmp_path / "a")
    (tmp_path / "a" / "report.html").write_text("the report")
    found = Comparison(tmp_path / "a", content, tmp_path / "a" / "report.html", (), interrupted=False)
    page = found._repr_html_()
    assert page is not None
    tags = Tags(page)
    assert content.verdict in tags.text
    rows = len(content.starts) * len(content.budgets)
    assert len(tags.of("tr")) == 1 + rows
    assert len(tags.of("svg")) > len(content.starts)
    ids = [str(one["id"]) for _, one in tags.tags if one.get("id")]
    assert len(set(ids)) == len(ids)
    other = write_comparison(tmp_path / "b")
    second = Comparison(tmp_path / "b", other, None, (), interrupted=False)._repr_html_()
    assert second is not None
    shared = set(ids) & {str(one["id"]) for _, one in Tags(second).tags if one.get("id")}
    assert not shared, "two cards in one notebook"
    assert "report.html" not in Tags(second).text


def test_a_plan_has_no_card_and_all_are_short_as_text(tmp_path: Path) -> None:
    assert Comparison(tmp_path, None, None, (), interrupted=False)._repr_html_() is None
    content = write_comparison(tmp_path / "a")
    assert len(repr(Comparison(tmp_path, content, None, (), interrupted=False))) < 300
