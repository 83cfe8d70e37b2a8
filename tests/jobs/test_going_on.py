from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from headstart.errors import UserError
from headstart.jobs.going_on import _upgraded, continued
from headstart.jobs.prepare import absolute_paths
from headstart.jobs.used_files import marks


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


@pytest.mark.parametrize(
    ("method", "there", "refused"),
    [
        ("distill", [], ["model", "init", "teacher"]),
        ("distill", ["checkpoints/step-00000002.pt"], ["teacher"]),  # which every step asks
        ("objects", [], ["model", "init", *SEARCHED]),
        ("objects", ["pseudolabels.pt"], ["model", "init"]),
        ("objects", ["pseudolabels.pt", "checkpoints/step-00000002.pt"], []),
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


def test_what_was_said_of_a_teacher_in_memory_goes_with_it(tmp_path: Path) -> None:
    """The pseudo-labels that it was needed for have been found."""
    teacher = {"teacher": {"in_memory": "Net", "origin": None}, "teacher_mean": [0.5, 0.5, 0.5], "teacher_std": None}
    run = recorded(tmp_path / "run", method="objects", **teacher)
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
