"""One reader of dataset YAMLs, against Ultralytics' own."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstart.errors import UserError
from headstart.images.dataset_yaml import find_dataset_yaml, read_dataset_yaml, shipped
from headstart.images.index import find_images


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set, looked at from another folder."""
    for part in ("train", "val"):
        (tmp_path / "data/images" / part).mkdir(parents=True)
        (tmp_path / f"data/images/{part}/{part}.jpg").write_bytes(part.encode())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "data"


def write(folder: Path, text: str, name: str = "my.yaml") -> Path:
    path = folder / name
    path.write_text("train: images/train\nval: images/val\n" + text)
    return path


@pytest.mark.parametrize(
    "text",
    [
        "names: [a, b]\n",
        "names: {0: a, 1: b}\n",
        "names: {'1': b, '0': a}\n",
        "names: [a, b]\nnc: 2\n",
        "names: [a, b]\nnc: '2'\n",
        "names: [a, b]\nnc: 2.0\n",
        "nc: '3'\n",
        "names: [1, 2]\n",
        "names:\nnc: 2\n",
    ],
)
def test_classes_are_those_of_ultralytics(folder: Path, text: str) -> None:
    from ultralytics.data.utils import check_det_dataset

    path = write(folder, text)
    theirs = check_det_dataset(str(path), autodownload=False)["names"]
    assert read_dataset_yaml(path).class_names() == tuple(str(theirs[number]) for number in range(len(theirs)))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no class names"),
        ("names: []\n", "has class names that cannot be understood"),
        ("names: {0: a, 2: b}\n", "has class names that cannot be understood"),
        ("names: {0: a, '0': b}\n", "has class names that cannot be understood"),
        ("names: {cat: 0}\n", "has class names that cannot be understood"),
        ("names: [a]\nnc: 2\n", "nc is 2, but there are 1 names"),
        ("nc: 1.5\n", "nc must be a whole number, not 1.5"),
        ("nc: many\n", "nc must be a whole number, not 'many'"),
    ],
)
def test_classes_that_cannot_be_understood(folder: Path, text: str, said: str) -> None:
    found = read_dataset_yaml(write(folder, text))
    with pytest.raises(UserError, match=said):
        found.class_names()
    assert [Path(path).name for path in find_images(found.file)] == ["train.jpg"]  # a pretraining needs no classes


def test_keypoints(folder: Path) -> None:
    assert read_dataset_yaml(write(folder, "kpt_shape: [17, 3]\n")).keypoints() == (17, 3)
    assert read_dataset_yaml(write(folder, "")).keypoints() is None
    with pytest.raises(UserError, match=r"kpt_shape must be such as \[17, 3\], not 17"):
        read_dataset_yaml(write(folder, "kpt_shape: 17\n")).keypoints()


def test_all_problems_together(folder: Path) -> None:
    path = folder / "my.yaml"
    path.write_text("train: 3\nval: [images/val, 4]\npath: [a]\n")
    with pytest.raises(UserError) as caught:
        read_dataset_yaml(path)
    for said in ("must name train as a path", "must name val as a path or a list of paths, not 4", "has a path that"):
        assert said in str(caught.value)


def test_validation_is_val(folder: Path) -> None:
    path = folder / "my.yaml"
    path.write_text("train: images\nvalidation: images/val\n")
    assert read_dataset_yaml(path).paths("val") == [str(folder / "images/val")]
    assert [Path(one).name for one in find_images(path)] == ["train.jpg"]


def test_a_path_that_is_meant_from_the_yaml(folder: Path) -> None:
    """Ultralytics takes ``path: ./`` from the working folder, where the images are not."""
    path = write(folder, "path: ./\n")
    assert [Path(one).name for one in find_images(path)] == ["train.jpg"]


def test_the_working_folder_comes_first_as_in_ultralytics(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ultralytics.data.utils import check_det_dataset

    for part in ("train", "val"):
        (Path("here/images") / part).mkdir(parents=True)
        (folder / "here/images" / part).mkdir(parents=True)
    path = write(folder, "path: here\nnc: 1\n")
    train = check_det_dataset(str(path), autodownload=False)["train"]
    assert [str(Path(one).resolve()) for one in read_dataset_yaml(path).paths("train")] == [train]


def test_every_place_that_was_looked_at_is_named(folder: Path) -> None:
    path = folder / "my.yaml"
    path.write_text("path: ./\ntrain: imgs\nval: imgs\n")
    with pytest.raises(UserError) as caught:
        find_images(path)
    assert f"(looked for {Path.cwd()}/imgs, {folder}/imgs" in caught.value.what
    assert caught.value.hint == "did you mean 'images'?" or "imgs" in str(caught.value.hint)


def test_shipped_names_are_understood_and_nothing_is_downloaded(folder: Path) -> None:
    found = shipped("coco8.yaml")
    assert found is not None
    assert find_dataset_yaml("coco8.yaml") == found
    assert "download" in found.read_text(encoding="utf-8")
    with pytest.raises(UserError) as caught:
        find_images("coco8.yaml")
    told = "coco8.yaml is a data set that Ultralytics ships; its images are not on this machine (looked for "
    assert caught.value.what.startswith(told)
    assert "site-packages" not in caught.value.what
    assert str(caught.value.hint).startswith("download it once with Ultralytics")


def test_a_file_of_the_users_comes_before_a_shipped_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    write(folder, "", "coco8.yaml")
    assert [Path(one).name for one in find_images("coco8.yaml")] == ["train.jpg"]
    assert (shipped("coco8.yaml"), find_dataset_yaml("coco8.yaml")) == (None, Path("coco8.yaml"))
    assert find_dataset_yaml("mine.yaml") is None
    assert find_dataset_yaml("images") is None


def test_a_home_is_understood(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    assert find_dataset_yaml("~/my.yaml") is None
    assert find_dataset_yaml("~nobody-of-that-name/my.yaml") is None
    path = write(folder, "names: [a]\n")
    assert find_dataset_yaml("~/my.yaml") == path


@pytest.mark.parametrize(
    "data",
    [
        b"train:\timages/train\nval:\timages/val\nnames:\t[a,\tb]\n",
        b"train: images/train\nval: images/val\nnames: ['a\x00\x1b', b]\n",
        b"# \x0b\x0c\ntrain: images/train\nval: images/val\nnames: [a, b]\n",
        b"train: images/train\nval: images/val\nnames: [\xe4a, b]\ntest: None\n",
        "train: images/train\nval: images/val\nnames: [a, b]\n".encode("utf-16"),
    ],
    ids=["tabs", "control characters", "vertical tab", "latin-1", "utf-16"],
)
def test_text_that_ultralytics_reads(folder: Path, data: bytes) -> None:
    from ultralytics.data.utils import check_det_dataset

    path = folder / "my.yaml"
    path.write_bytes(data)
    theirs, ours = check_det_dataset(str(path), autodownload=False), read_dataset_yaml(path)
    assert dict(enumerate(ours.class_names())) == theirs["names"] == {0: "a", 1: "b"}
    assert [*ours.paths("train"), *ours.paths("val")] == [theirs["train"], theirs["val"]]
    assert ("test" in ours.parts) == bool(theirs.get("test"))


def test_tabs_that_indent_are_told(folder: Path) -> None:
    with pytest.raises(UserError, match="is not valid YAML"):
        read_dataset_yaml(write(folder, "names:\n\t- a\n"))


def test_brackets_without_end_are_told(folder: Path) -> None:
    """A parser in C ends the process."""
    with pytest.raises(UserError, match="is not valid YAML"):
        read_dataset_yaml(write(folder, "names:\t" + "[" * 50_000))


def test_labels_lie_beside_the_folder_that_a_link_leads_to(folder: Path) -> None:
    from ultralytics.data.utils import check_det_dataset

    (folder / "linked").mkdir()
    (folder / "linked/pictures").symlink_to(folder / "images", target_is_directory=True)
    path = folder / "linked/my.yaml"
    path.write_text("train: pictures/train\nval: pictures/val\nnames: [a]\n")
    assert read_dataset_yaml(path).paths("train") == [check_det_dataset(str(path), autodownload=False)["train"]]
    assert list(find_images(path)) == [str(folder.resolve() / "images/train/train.jpg")]


@pytest.mark.parametrize("name", ["train.list", "ImageSets"])
def test_lists_of_any_suffix(folder: Path, name: str) -> None:
    (folder / name).write_text("./images/train/train.jpg\n")
    path = folder / "my.yaml"
    path.write_text(f"train: {name}\nval: images/val\nnames: [a]\n")
    assert list(find_images(path)) == [str(folder / "images/train/train.jpg")]
    (folder / name).write_text("nothing of an image\n")
    with pytest.raises(UserError, match="is not an image"):
        find_images(path)
