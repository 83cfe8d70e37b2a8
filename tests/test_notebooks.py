"""The notebooks of ``examples/``, run as a person would run them, with small numbers in their parameters cell."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

from small import SMALL

EXAMPLES = Path(__file__).parent.parent / "examples"
FEWER = """\
MODEL = "small.yaml"
UNLABELLED, TRAIN, VAL = 8, 4, 2
IMGSZ, STEPS, BATCH, EPOCHS, SEEDS = 64, 4, 4, 1, 1
OUT = "runs"
"""
WRONG = 'headstart.pretrain(data="no/such/folder", epochs="many")'


def cells(name: str) -> Any:
    return nbformat.read(EXAMPLES / name, as_version=4)


def executed(name: str, folder: Path) -> dict[str, Any]:
    """Id -> the cell with its outputs; below the last one a call that cannot be obeyed."""
    (folder / "small.yaml").write_text(SMALL)
    book = cells(name)
    parameters = [cell for cell in book.cells if "parameters" in cell.metadata.get("tags", ())]
    assert len(parameters) == 1
    names = [re.findall(r"^[A-Z, ]+ =", text, re.MULTILINE) for text in (parameters[0].source, FEWER)]
    assert names[0] == names[1]
    parameters[0].source = FEWER
    for cell in book.cells:  # as small as the rest
        small = "workers=0, device='cpu'"
        cell.source = cell.source.replace("imgsz=128", f"imgsz=64, local_imgsz=32, {small}")
        cell.source = cell.source.replace("imgsz=IMGSZ, batch=8", f"imgsz=IMGSZ, batch=2, {small}")
        cell.source = cell.source.replace("imgsz=IMGSZ, out", f"imgsz=IMGSZ, {small}, out")
    book.cells.append(nbformat.v4.new_code_cell(WRONG, metadata={"tags": ["raises-exception"]}, id="wrong"))
    nbclient.NotebookClient(book, timeout=280, resources={"metadata": {"path": str(folder)}}).execute()
    return {cell.id: cell for cell in book.cells}


def pages(cell: Any) -> list[str]:
    """What a cell shows as HTML."""
    return [one.data["text/html"] for one in cell.outputs if "text/html" in one.get("data", {})]


def check_shown(pretrain: Any, compare: Any, wrong: Any) -> None:
    bar, card = pages(pretrain)[0], pages(pretrain)[-1]
    assert '<b>pretrain</b> <progress value="4" max="4"' in "".join(pages(pretrain)), bar
    assert 'class="headstart-card"' in card
    assert 'src="data:image/' in card
    assert '<a href="./runs/' in card
    found = pages(compare)[-1]
    assert 'class="headstart-card"' in found
    assert "Inconclusive" in found
    assert ">headstart<" in found or ">selftrain<" in found
    assert any("<b>cells</b>" in page and 'value="2" max="2"' in page for page in pages(compare))
    streams = [one for cell in (pretrain, compare) for one in cell.outputs if one.output_type == "stream"]
    red = [one.text for one in streams if one.name == "stderr" and "IProgress not found" not in one.text]  # tqdm's own
    assert red == [], "what goes to standard error has a red ground"
    error = next(one for one in wrong.outputs if one.output_type == "error")
    assert error.traceback[0].startswith("headstart: 2 problems:\n1. ")
    assert len(error.traceback) == 1


def test_the_tutorial(tmp_path: Path) -> None:
    found = executed("tutorial.ipynb", tmp_path)
    check_shown(found["pretrain"], found["compare"], found["wrong"])
    told = "".join(one.text for one in found["finetune"].outputs if one.output_type == "stream")
    assert re.search(r"in the trainer's model and the trainer's EMA: backbone (\d+) of \1, neck (\d+) of \2", told)
    assert (tmp_path / "runs" / "finetune" / "weights" / "last.pt").is_file()
    assert any("image/png" in one.get("data", {}) for one in found["predict"].outputs)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs", "small.yaml"]


@pytest.mark.slow
def test_few_labels(tmp_path: Path) -> None:
    found = executed("few_labels.ipynb", tmp_path)
    check_shown(found["selftrain"], found["compare"], found["wrong"])
    assert any("image/png" in one.get("data", {}) for one in found["predict"].outputs)


def test_they_are_kept_without_what_they_printed() -> None:
    for path in EXAMPLES.glob("*.ipynb"):
        book = cells(path.name)
        nbformat.validate(book)
        for cell in book.cells:
            assert not cell.get("outputs"), f"{path.name}: clear the outputs"
            assert cell.get("execution_count") is None, path.name
        assert sum("YOUR OWN IMAGES" in cell.source for cell in book.cells) == 1, path.name
    assert len(cells("tutorial.ipynb").cells) == 10
