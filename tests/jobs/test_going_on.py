from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from headstart.errors import UserError
from headstart.images.index import ImageIndex
from headstart.jobs.going_on import _upgraded, command, continued
from headstart.jobs.prepare import absolute_paths
from headstart.jobs.used_files import labels_mark, marks, relabelled, unchanged
from headstart.methods.base import GivenLabels
from headstart.methods.selftrain import Settings
from headstart.pseudolabels.base import PseudoLabels


def recorded(folder: Path, resolved: dict[str, Any] | None = None, **options: Any) -> Path:
    """A run folder that tells of these options."""
    folder.mkdir(parents=True)
    content = {"asked": options, "options": options, "resolved": resolved or {}}
    (folder / "settings.yaml").write_text(yaml.safe_dump(content))
    return folder


def test_records_of_the_first_version_are_read() -> None:
    """As version 0.1 wrote them: other names, and a sentence for an object in memory."""
    old = {"colour": "strong", "most": 30, "teacher": "live VisionTransformer (None)", "data": ["live pictures"]}
    assert _upgraded(old) == {
        "color": "strong",
        "max_objects": 30,
        "teacher": {"in_memory": "VisionTransformer", "origin": "None"},
        "data": ["live pictures"],
    }
    assert _upgraded({"teacher": "live.pt", "model": "live wire/a.pt"}) == {
        "teacher": "live.pt",
        "model": "live wire/a.pt",
    }


def test_a_published_name_is_the_file_that_it_became(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run has downloaded its weights into the current folder: its own command goes on with it."""
    monkeypatch.chdir(tmp_path)
    names = {"model": "yolo11n.pt", "init": "yolo11s.pt", "proposals": "yolo11m.pt", "teacher": "yolo11l.pt"}
    run = recorded(tmp_path / "run", method="objects", **names)
    for name in [*names.values(), "other.pt"]:
        (tmp_path / name).write_bytes(b"")
    given = {"out": str(run), "resume": True, **absolute_paths(names)}
    assert given["model"] == str(tmp_path / "yolo11n.pt")
    assert continued(given, [])[0]["model"] == "yolo11n.pt"
    with pytest.raises(UserError, match=r"model: was 'yolo11n\.pt' when the run began"):
        continued({**given, **absolute_paths({"model": "other.pt"})}, [])


SEARCHED = ["proposals", "teacher"]
FOUND = PseudoLabels.gather(2, torch.tensor([1]), torch.rand(1, 4), torch.ones(1), torch.tensor([0]))


@pytest.mark.parametrize(
    ("method", "there", "refused"),
    [
        ("distill", [], ["model", "init", "teacher"]),
        ("distill", ["checkpoints/step-00000002.pt"], ["teacher"]),  # which every step asks
        ("objects", [], ["model", "init", *SEARCHED]),
        ("objects", ["pseudolabels.pt"], ["model", "init"]),
        ("objects", ["pseudolabels.pt", "checkpoints/step-00000002.pt"], []),
        ("objects", ["checkpoints/step-00000002.pt"], ["model", "init", *SEARCHED]),  # it is searched again
        ("dino", [], ["model", "init"]),
    ],
)
def test_a_file_that_was_replaced_is_refused_by_name_where_it_is_still_needed(
    tmp_path: Path, method: str, there: list[str], refused: list[str]
) -> None:
    names = ["model", "init", *(["teacher"] if method == "distill" else SEARCHED if method == "objects" else [])]
    files = {name: str(tmp_path / f"{name}.pt") for name in names}
    for name, path in files.items():
        Path(path).write_bytes(b"weights of " + name.encode())
    steps = 9 if "checkpoints" in "".join(there) else None
    run = recorded(tmp_path / "run", {"files": marks(files), "steps": steps}, method=method, **files)
    (run / "checkpoints").mkdir()
    for name in there:
        (run / name).write_bytes(b"")
    if "pseudolabels.pt" in there:
        FOUND.save(run / "pseudolabels.pt")
    given = {"out": str(run), "resume": True}
    assert continued(given, [])[0]["init"] == files["init"]
    for path in files.values():
        Path(path).write_bytes(b"other weights")
    if not refused:
        continued(given, [])
        return
    with pytest.raises(UserError) as caught:
        continued(given, [])
    assert [one.where for one in caught.value.parts] == refused
    assert f"{files[refused[0]]} is not the file that this run began with" in str(caught.value)
    old = recorded(tmp_path / "old", {"steps": steps}, method=method, **files)  # as older versions wrote it
    continued({"out": str(old), "resume": True}, [])


def test_labels_may_be_written_to_another_folder(tmp_path: Path) -> None:
    """The folder that the run began with may hold them already; a new one has to be free."""
    old, new, full = (str(tmp_path / name) for name in ("old", "new", "full"))
    for folder in (old, full):
        Path(folder).mkdir()
        (Path(folder) / "data.yaml").touch()
    run = recorded(
        tmp_path / "run", method="selftrain", labels="few.yaml", export_labels=old, data=[str(tmp_path / "a")]
    )
    given = {"out": str(run), "resume": True}
    assert continued(given, [])[0]["export_labels"] == old
    assert continued({**given, "export_labels": old}, [])[0]["export_labels"] == old
    used = continued({**given, "export_labels": new}, [])[0]
    assert used["export_labels"] == new
    assert command(run, used) == f"headstart pretrain resume=true out={run} export_labels={new}"
    with pytest.raises(UserError, match=r"export_labels: .*full is not an empty folder"):
        continued({**given, "export_labels": full}, [])


def test_what_was_said_of_a_teacher_in_memory_goes_with_it(tmp_path: Path) -> None:
    """The pseudo-labels that it was needed for have been found."""
    teacher = {"teacher": {"in_memory": "Net", "origin": None}, "teacher_mean": [0.5, 0.5, 0.5], "teacher_std": None}
    run = recorded(tmp_path / "run", method="objects", **teacher)
    with pytest.raises(UserError, match="teacher: was a network in memory, which a run cannot keep"):
        continued({"out": str(run), "resume": True}, [])
    FOUND.save(run / "pseudolabels.pt")
    found, _ = continued({"out": str(run), "resume": True}, [])
    assert [found[key] for key in teacher] == [None, None, None]
    assert "teacher_weights" not in found


@pytest.mark.parametrize(
    ("options", "said"), [({"data": "x"}, "options has no method"), ({"method": "dino", "budget": "2h"}, "no steps")]
)
def test_a_damaged_record_is_told(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    run = recorded(tmp_path / "run", **options)
    with pytest.raises(UserError, match=rf"settings\.yaml: cannot be read: .*{said}"):
        continued({"out": str(run), "resume": True}, [])


def test_a_record_of_nothing_asked_is_told(tmp_path: Path) -> None:
    run = recorded(tmp_path / "run", method="dino")
    content = yaml.safe_load((run / "settings.yaml").read_text())
    (run / "settings.yaml").write_text(yaml.safe_dump({**content, "asked": None}))
    with pytest.raises(UserError, match=r"settings\.yaml: cannot be read: asked is to be a mapping"):
        continued({"out": str(run), "resume": True}, [])


def test_files_are_named_so_that_another_folder_finds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_paths({"loggers": "csv,my.py", "cache_dir": "kept", "data": "images"}) == {
        "loggers": ["csv", str(tmp_path / "my.py")],
        "cache_dir": str(tmp_path / "kept"),
        "data": [str(tmp_path / "images")],
    }
    assert absolute_paths({"data": ["coco8.yaml", "mine.yaml"]})["data"] == ["coco8.yaml", str(tmp_path / "mine.yaml")]
    (tmp_path / "coco8.yaml").write_text("train: images\n")  # the user's own comes before the one that is shipped
    assert absolute_paths({"data": "coco8.yaml"})["data"] == [str(tmp_path / "coco8.yaml")]


def given(rows: list[int], boxes: dict[int, list[tuple[int, float]]], images: int = 6) -> GivenLabels:
    """Labels of the images at `rows`: of each its boxes as (class, side)."""
    flat = [(row, label, side) for row, each in boxes.items() for label, side in each]
    owners, labels = torch.tensor([one[0] for one in flat]), torch.tensor([one[1] for one in flat])
    corners = torch.tensor([[0.0, 0.0, side, side] for *_, side in flat])
    known = PseudoLabels.gather(images, owners, corners, torch.ones(len(flat)), labels)
    return GivenLabels(("nut", "bolt"), torch.tensor(rows), known)


def test_images_that_a_run_with_labels_did_not_begin_with_are_refused() -> None:
    """Labels of a teacher are kept by the place of the image: with one more before it they would be another's."""
    images = ImageIndex(["/a/1.png", "/a/2.png", "/a/3.png"])
    began = {"images": 3, "images_fingerprint": images.fingerprint()}
    unchanged(began, images)
    unchanged({}, images)  # of an older version
    for others in (["/a/0.png", "/a/1.png", "/a/2.png"], ["/a/1.png", "/a/2.png"]):
        with pytest.raises(UserError, match=f"data: .* has labels for: 3 then, {len(others)} now"):
            unchanged(began, ImageIndex(others))


def test_labels_that_a_run_did_not_begin_with_are_refused() -> None:
    """Also where neither their number nor that of the images is another; other images beside them change nothing."""
    begun = given([0, 2, 4], {0: [(0, 0.5)], 2: [(1, 0.25), (0, 0.5)]})
    found = yaml.safe_load(yaml.safe_dump(labels_mark(begun)))
    assert (found["images"], found["boxes"]) == (3, 3)
    mark = {"labels_mark": found}
    relabelled(mark, begun, "my.yaml")
    for older in ({}, {"labels": found}):
        relabelled(older, begun, "my.yaml")
    relabelled(mark, given([1, 3, 5], {1: [(0, 0.5)], 3: [(1, 0.25), (0, 0.5)]}, images=9), "my.yaml")
    for rows, boxes in (
        ([0, 2, 4], {0: [(1, 0.5)], 2: [(1, 0.25), (0, 0.5)]}),  # a class
        ([0, 2, 4], {0: [(0, 0.5)], 2: [(1, 0.26), (0, 0.5)]}),  # a box
        ([0, 2, 4], {2: [(0, 0.5)], 4: [(1, 0.25), (0, 0.5)]}),  # the image
        ([0, 2, 4], {0: [(0, 0.5), (1, 0.25)], 2: [(0, 0.5)]}),
    ):
        with pytest.raises(UserError, match=r"of my.yaml are not those .*: 3 boxes on 3 images, others than then"):
            relabelled(mark, given(rows, boxes), "my.yaml")
    with pytest.raises(UserError, match="3 boxes on 3 images then, 1 boxes on 2 images now"):
        relabelled(mark, given([0, 2], {0: [(0, 0.5)]}), "my.yaml")
    other = GivenLabels(("bolt", "nut"), begun.rows, begun.labels)
    with pytest.raises(UserError, match="others than then"):
        relabelled(mark, other, "my.yaml")


@pytest.mark.parametrize(
    ("burn_in", "step", "refused"), [(None, 0, True), (None, 2, False), (0.5, 5, True), (0.5, 6, False)]
)
def test_another_detector_is_needed_until_it_has_labelled(
    tmp_path: Path, burn_in: float | None, step: int, refused: bool
) -> None:
    """After burn-in, of 10 steps here; the state of that step is saved before it labels."""
    weights = tmp_path / "proposals.pt"
    weights.write_bytes(b"weights")
    files = {"proposals": str(weights)}
    more = {} if burn_in is None else {"burn_in": burn_in}
    run = recorded(tmp_path / "run", {"files": marks(files), "steps": 10}, method="selftrain", **files, **more)
    (run / "checkpoints").mkdir()
    for name in (f"step-{step:08d}.pt", f"step-{9:08d} (copy).pt", "step-x.pt"):
        (run / "checkpoints" / name).write_bytes(b"")
    given = {"out": str(run), "resume": True}
    continued(given, [])
    weights.write_bytes(b"other weights")
    if refused:
        with pytest.raises(UserError, match=r"proposals: .* is not the file that this run began with"):
            continued(given, [])
    else:
        continued(given, [])


def test_an_option_that_an_older_version_lacked_may_be_said_as_it_is_by_default(tmp_path: Path) -> None:
    run = recorded(tmp_path / "run", method="selftrain")
    given = {"out": str(run), "resume": True}
    continued({**given, "mixup": str(Settings.model_fields["mixup"].default)}, [])
    with pytest.raises(UserError, match=r"mixup: was .* when the run began, is '0\.777' now"):
        continued({**given, "mixup": "0.777"}, [])
