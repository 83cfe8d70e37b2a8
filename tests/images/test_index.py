from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headstart.errors import UserError
from headstart.images.index import ImageIndex, check_sources, find_images


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def found(data: object, root: Path) -> list[str]:
    index = find_images(data)  # type: ignore[arg-type]
    assert index.paths() == sorted(index.paths())
    return [os.path.relpath(path, root) for path in index]


def problem(data: object) -> str:
    with pytest.raises(UserError) as caught:
        find_images(data)  # type: ignore[arg-type]
    return str(caught.value)


def test_folder_is_walked_and_sorted(tree: Path) -> None:
    images = ["b/2.JPG", "b/1.jpeg", "a/x.png", "a/deep/er/y.WebP", "z.bmp", "t.tif", "t.TIFF"]
    touch(tree, *images, "notes.txt", "a/labels.json", "b/movie.mp4", "jpg", "x.jpg.part")
    assert found(tree, tree) == sorted(images)
    assert found(str(tree) + "/", tree) == sorted(images)
    assert found(".", tree) == sorted(images)


def test_hidden_files_and_resource_forks_are_passed_over(tree: Path) -> None:
    touch(tree, "a.jpg", "._a.jpg", ".hidden.png", ".cache/b.jpg", "sub/.ipynb_checkpoints/c.jpg", "__MACOSX/._a.jpg")
    assert found(tree, tree) == ["a.jpg"]
    assert found(tree / ".cache", tree) == [".cache/b.jpg"]  # named, so meant
    assert found("**/*.jpg", tree) == ["a.jpg"]


def test_folder_named_like_an_image_is_a_folder(tree: Path) -> None:
    touch(tree, "x.jpg/inside.png")
    assert found(tree, tree) == ["x.jpg/inside.png"]
    assert found("x.jpg", tree) == ["x.jpg/inside.png"]


def test_names_with_glob_signs_spaces_and_other_bytes(tree: Path) -> None:
    touch(tree, "set [1]/a b.jpg", "set [1]/写真 ü.jpg")
    with open(os.fsencode(tree) + b"/set [1]/\xff\xfe.jpg", "wb"):  # noqa: PTH123 - a name that is no UTF-8
        pass
    assert len(found("set [1]", tree)) == 3
    assert all(Path(path).exists() for path in find_images("set [1]"))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["top.jpg"]),
        ("a/*.jpg", ["a/1.jpg", "a/2.jpg"]),
        ("?/1.*", ["a/1.jpg", "b/1.jpg"]),
        ("[!a]/*.jpg", ["b/1.jpg"]),
        ("[ab]", ["a/1.jpg", "a/2.jpg", "a/in/3.jpg", "b/1.jpg"]),
        ("**", ["a/1.jpg", "a/2.jpg", "a/in/3.jpg", "b/1.jpg", "top.jpg"]),
        ("**/*.jpg", ["a/1.jpg", "a/2.jpg", "a/in/3.jpg", "b/1.jpg", "top.jpg"]),
        ("**/**/1.jpg", ["a/1.jpg", "b/1.jpg"]),
        ("a/**/*.jpg", ["a/1.jpg", "a/2.jpg", "a/in/3.jpg"]),
        ("**/in", ["a/in/3.jpg"]),
        ("**/in/*.jpg", ["a/in/3.jpg"]),
        ("*/**/[23].jpg", ["a/2.jpg", "a/in/3.jpg"]),
        ("./**/[!12]*.jpg", ["a/in/3.jpg", "top.jpg"]),
    ],
)
def test_globs(tree: Path, pattern: str, expected: list[str]) -> None:
    touch(tree, "top.jpg", "a/1.jpg", "a/2.jpg", "a/in/3.jpg", "b/1.jpg", "a/x.txt")
    assert found(pattern, tree) == expected
    assert found(f"{tree}/{pattern}", tree) == expected


def test_circles_of_links_end(tree: Path) -> None:
    touch(tree, "a/1.jpg", "b/2.jpg")
    for place, name in ((tree / "a", "up"), (tree / "a", "side"), (tree / "b", "up"), (tree / "b", "self")):
        (place / name).symlink_to({"up": tree, "side": tree / "b", "self": place}[name])
    (tree / "a" / "round.jpg").symlink_to(tree / "a" / "round.jpg")
    began = time.perf_counter()
    for data in (tree, "**/*.jpg", "a/**"):
        names = [Path(path).name for path in find_images(data)]
        assert sorted(names) == ["1.jpg", "2.jpg", "round.jpg"]
    assert time.perf_counter() - began < 2


def test_duplicates_are_there_once(tree: Path) -> None:
    touch(tree, "a/1.jpg", "a/2.jpg")
    (tree / "link.jpg").symlink_to(tree / "a" / "1.jpg")
    (tree / "copy").symlink_to(tree / "a")
    (tree / "list.txt").write_text("a/1.jpg\n./a/1.jpg\nlink.jpg\ncopy/2.jpg\na/../a/2.jpg\n")
    assert found([tree, "a", "a/*.jpg", "a/1.jpg", "copy", "list.txt"], tree) == ["a/1.jpg", "a/2.jpg"]


def test_links_to_files_elsewhere_keep_their_names(tree: Path) -> None:
    touch(tree, "store/5ac1", "set/real.jpg")
    (tree / "set" / "cat.jpg").symlink_to(tree / "store" / "5ac1")
    (tree / "set" / "gone.jpg").symlink_to(tree / "nowhere")
    assert found("set", tree) == ["set/cat.jpg", "set/gone.jpg", "set/real.jpg"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_text_lists(tree: Path, encoding: str, end: str) -> None:
    lines = ["# train", "", "./a.jpg", "sub/ü b.png", "  c.JPG  ", f"{tree}/elsewhere/d.tif", "missing.jpg", "note.md"]
    (tree / "lists").mkdir()
    (tree / "lists" / "train.txt").write_bytes((end.join(lines) + end).encode(encoding))
    names = ["elsewhere/d.tif", "lists/a.jpg", "lists/c.JPG", "lists/missing.jpg", "lists/sub/ü b.png"]
    assert found("lists/train.txt", tree) == names
    assert find_images("lists/train.txt").notes == (f"lines of {tree}/lists/train.txt that do not name an image: 1",)


def test_list_relative_to_the_working_folder(tree: Path) -> None:
    touch(tree, "data/images/1.jpg", "data/images/2.jpg")
    (tree / "data" / "train.txt").write_text("data/images/1.jpg\ndata/images/2.jpg\n./images/1.jpg\n")
    assert found("data/train.txt", tree) == ["data/images/1.jpg", "data/images/2.jpg"]


def test_single_files_and_several_sources(tree: Path) -> None:
    touch(tree, "a.jpg", "b/1.png", "c/2.bmp")
    assert found("a.jpg", tree) == ["a.jpg"]
    assert found(["c", Path("a.jpg"), "b/*.png"], tree) == ["a.jpg", "b/1.png", "c/2.bmp"]
    assert find_images(["c", "a.jpg"]).sources == (f"{tree}/c", f"{tree}/a.jpg")


def test_home_folder(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tree))
    touch(tree, "pictures/a.jpg")
    assert found("~/pictures", tree) == ["pictures/a.jpg"]


# -- dataset YAMLs ----------------------------------------------------------------------------------------------------


def test_dataset_takes_train_only(tree: Path) -> None:
    touch(tree, "d/images/train/1.jpg", "d/images/val/2.jpg", "d/images/test/3.jpg")
    (tree / "d" / "d.yaml").write_text("train: images/train\nval: images/val\ntest: images/test\nnames: [a]\n")
    assert found("d/d.yaml", tree) == ["d/images/train/1.jpg"]


@pytest.mark.parametrize("path", ["{tree}/d", "d"])
def test_dataset_path_and_list_of_parts(tree: Path, path: str) -> None:
    touch(tree, "d/one/1.jpg", "d/two/2.jpg", "d/three/3.jpg", "d/val/4.jpg")
    (tree / "d" / "more.txt").write_text("./three/3.jpg\n./val/4.jpg\n")
    (tree / "cfg").mkdir()
    yaml = f"path: {path.format(tree=tree)}\ntrain: [one, two, more.txt]\nval:\n  - val\n"
    (tree / "cfg" / "d.yaml").write_text(yaml)
    index = find_images("cfg/d.yaml")
    assert [os.path.relpath(p, tree) for p in index] == ["d/one/1.jpg", "d/three/3.jpg", "d/two/2.jpg"]
    assert index.left_out == 1
    assert index.notes == (f"1 of 4 images of train in {tree}/cfg/d.yaml are also in val or test, and were left out",)


def test_dataset_parts_agree_with_ultralytics(tree: Path) -> None:
    from ultralytics.data.utils import check_det_dataset

    touch(tree, "d/train/images/1.jpg", "d/valid/images/2.jpg", "d/cfg/x.txt")
    (tree / "d" / "cfg" / "data.yaml").write_text("path: d\ntrain: ../train/images\nval: ../valid/images\nnc: 1\n")
    train = check_det_dataset("d/cfg/data.yaml", autodownload=False)["train"]
    assert found("d/cfg/data.yaml", tree) == [os.path.relpath(path, tree) for path in find_images(train)]


def test_dataset_leaves_out_what_val_reaches_through_links(tree: Path) -> None:
    touch(tree, "all/1.jpg", "all/2.jpg")
    (tree / "val").mkdir()
    (tree / "val" / "v.jpg").symlink_to(tree / "all" / "2.jpg")
    (tree / "d.yaml").write_text("train: all\nval: val\ntest: not/there\n")
    assert found("d.yaml", tree) == ["all/1.jpg"]


def test_dataset_whose_val_is_its_train(tree: Path) -> None:
    touch(tree, "images/1.jpg", "images/2.jpg")
    (tree / "d.yaml").write_text("train: images\nval: images\n")
    assert problem("d.yaml") == (
        f"data: no images found in {tree}/d.yaml: all 2 images of train are also in val or test\n"
        "  -> to pretrain on them all the same, give their folder as data"
    )
    assert found(["d.yaml", "images"], tree) == ["images/1.jpg", "images/2.jpg"]


def test_labels_whose_val_is_their_train_are_learnt_from_all_the_same(tree: Path) -> None:
    """As in coco8.yaml; kept beside the index of the same file as data, which stays empty."""
    touch(tree, "images/1.jpg", "images/2.jpg", "more/3.jpg")
    (tree / "d.yaml").write_text("train: images\nval: images\n")
    for _ in range(2):
        index = find_images("more", tree / "kept", labels="d.yaml")
        assert [os.path.relpath(path, tree) for path in index] == ["images/1.jpg", "images/2.jpg", "more/3.jpg"]
        assert index.left_out == 0
        assert index.notes == (
            f"all images of train in {tree}/d.yaml are also in val or test, and are learnt from all the same: what is "
            "measured on val or test then says nothing of new images",
        )
    assert list(find_images([], labels="d.yaml")) == list(find_images("d.yaml", labels="d.yaml")) == list(index)[:2]
    assert "are also in val or test" in problem("d.yaml")


def test_labels_of_which_val_lists_some_leave_these_out(tree: Path) -> None:
    touch(tree, "images/1.jpg", "images/2.jpg")
    (tree / "d.yaml").write_text("train: images\nval: images/2.jpg\n")
    index = find_images([], labels="d.yaml")
    assert [os.path.relpath(path, tree) for path in index] == ["images/1.jpg"]
    assert index.left_out == 1
    assert index.notes == (f"1 of 2 images of train in {tree}/d.yaml are also in val or test, and were left out",)


# -- bad input: what a user sees --------------------------------------------------------------------------------------


BAD = {
    "": "data: cannot read images from ''\n  -> give a folder",
    "imagse": "data: no such file or folder: imagse\n  -> did you mean 'images'?",
    "images/tarin/x": "data: no such file or folder: images/tarin/x\n  -> did you mean 'train'?",
    "images/qqqqqq": "data: no such file or folder: images/qqqqqq\n  -> {tree}/images exists, but has no 'qqqqqq'",
    "empty": "data: no images found in {tree}/empty\n  -> looked for jpg, jpeg, png, webp, bmp, tif, tiff, avif, dng",
    "other": "data: no images found in {tree}/other: 2 other files, such as a.gif\n  -> looked for jpg",
    "images/*.png": "data: no images found in {tree}/images/*.png\n",
    "images/**/[z-a].jpg": "data: the glob {tree}/images/**/[z-a].jpg is not valid: bad character range z-a",
    "movie.mp4": "data: no images found in {tree}/movie.mp4: 1 videos cannot be read, such as {tree}/movie.mp4 (empty",
    "words.doc": "data: {tree}/words.doc is not an image, a video, a shard, a list or a dataset YAML\n  -> give a",
    "https://example.org/a.jpg": "data: https://example.org/a.jpg is an address\n  -> download the images",
    "empty.txt": "data: no images found in {tree}/empty.txt\n",
    "words.txt": "data: no images found in {tree}/words.txt (lines of {tree}/words.txt that do not name an image: 2)\n",
    "broken.yaml": "data: {tree}/broken.yaml is not valid YAML: ",
    "list.yaml": "data: {tree}/list.yaml is not a dataset YAML\n  -> it needs train: <folder>",
    "no_train.yaml": "data: {tree}/no_train.yaml has no train images\n  -> did you mean 'trian'?",
    "wrong_train.yaml": "data: train of {tree}/wrong_train.yaml: no such file or folder: {tree}/imgs\n  -> did",
    "number.yaml": "data: {tree}/number.yaml must name train as a path or a list of paths, not 3",
    "a\0b": "data: 'a\\x00b' is not a path\n",
}


@pytest.mark.parametrize("data", BAD)
def test_bad_input(tree: Path, data: str) -> None:
    touch(tree, "images/train/1.jpg", "other/a.gif", "other/b.psd", "movie.mp4", "empty.txt", "words.doc")
    (tree / "empty").mkdir()
    texts = {
        "words.txt": "hello\nworld\n",
        "broken.yaml": "train: [a\nval: {",
        "list.yaml": "- a\n- b\n",
        "no_train.yaml": "trian: images\nval: images\n",
        "wrong_train.yaml": "train: imgs\nval: images\n",
        "number.yaml": "train: 3\n",
    }
    for name, text in texts.items():
        (tree / name).write_text(text)
    assert problem(data).startswith(BAD[data].format(tree=tree))


@pytest.mark.parametrize("data", [[], 3, [3], [None], None])
def test_bad_types(tree: Path, data: object) -> None:
    assert problem(data).startswith("data: ")


def test_all_problems_are_told_together(tree: Path) -> None:
    touch(tree, "ok/1.jpg", "b.doc")
    problems = check_sources(["ok", "nowhere", "b.doc"])
    assert [p.what for p in problems] == [
        "no such file or folder: nowhere",
        f"{tree}/b.doc is not an image, a video, a shard, a list or a dataset YAML",
    ]
    assert problem(["ok", "nowhere", "b.doc"]).startswith("2 problems:\n1. data: no such file")
    assert check_sources("ok") == []
    assert check_sources(tree / "ok") == []


def test_folder_that_cannot_be_read(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tree, "a/1.jpg", "locked/2.jpg")
    real = os.scandir

    def scandir(path: str) -> object:  # the superuser who runs the tests may read everything
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    index = find_images(tree)
    assert [Path(p).name for p in index] == ["1.jpg"]
    assert index.notes == (f"the folder {tree}/locked was passed over: Permission denied",)


# -- the index itself -------------------------------------------------------------------------------------------------


def test_index_access() -> None:
    paths = ["/a/1.jpg", "/a/ü.jpg", "/b/\udcff.png"]
    index = ImageIndex(paths, ["/a", "/b"])
    assert len(index) == 3
    assert list(index) == paths == index.paths()
    assert index.paths(slice(1, None)) == paths[1:]
    assert index.path(2) == paths[2]
    for i in (-1, 3):
        with pytest.raises(IndexError):
            index.path(i)
    assert len(ImageIndex([])) == 0
    assert list(ImageIndex([])) == []


def test_fingerprint() -> None:
    prints = [ImageIndex(p).fingerprint() for p in (["/a", "/b"], ["/b", "/a"], ["/a/b"], ["/a"], [])]
    assert len(set(prints)) == 5
    assert ImageIndex(["/a", "/b"], ["other"]).fingerprint() == prints[0]


def test_index_is_compact_and_quick() -> None:
    paths = [f"/data/images/folder_{i // 1000:05d}/image_{i:08d}.jpg" for i in range(100_000)]
    began = time.perf_counter()
    index = ImageIndex(paths)
    data = pickle.dumps(index)
    assert len(data) < sum(map(len, paths)) + 8 * len(paths) + 2000
    copy = pickle.loads(data)
    assert (copy.path(99_999), copy.fingerprint()) == (paths[-1], index.fingerprint())
    assert time.perf_counter() - began < 5


def test_torch_and_ultralytics_stay_unimported() -> None:
    code = "import sys, headstart.images.index; print([m for m in ('torch', 'cv2', 'ultralytics') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_what_runs_have_drawn_below_the_data_is_passed_over(tree: Path) -> None:
    """``data=.`` with ``out`` below it: a second run would learn from the pictures of the first."""
    touch(tree, "a.jpg", "b/c.png")
    before = list(find_images(tree))
    marks = {
        "pretraining": (["settings.yaml", "log.txt"], ["checkpoints"]),
        "comparison": (["compare.yaml"], ["cells"]),
        "Ultralytics": (["args.yaml"], ["weights"]),
    }
    for name, (files, folders) in marks.items():
        run = tree / "runs" / name
        (run / "assets").mkdir(parents=True)
        (run / "assets" / "views.png").write_bytes(b"")
        for folder in folders:
            (run / folder).mkdir()
        for file in files:
            (run / file).write_text("")
    index = find_images(tree)
    assert list(index) == before
    assert sum("was passed over" in note for note in index.notes) == 3
    assert len(find_images(tree / "runs" / "comparison")) == 1  # named by the user itself


def test_formats_that_are_not_read_are_counted(tree: Path) -> None:
    touch(tree, "a.jpg", "x.gif", "y.GIF", "z.cr2", "labels.txt")
    (note,) = [note for note in find_images(tree).notes if "passed over" in note]
    assert ": 1 .cr2, 2 .gif (" in note


def test_suffixes_are_those_of_ultralytics() -> None:
    from ultralytics.data.utils import IMG_FORMATS

    from headstart.images.sources import PASSED_OVER, SUFFIXES

    assert {suffix[1:] for suffix in SUFFIXES} == set(IMG_FORMATS)
    assert not set(PASSED_OVER) & set(SUFFIXES)
