"""Images of one and of many channels: the pixels that Ultralytics trains on, through store, loader and views."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from ultralytics.utils.patches import imread

import films
from headstart.errors import UserError
from headstart.images.cache import open_cache
from headstart.images.decode import DecodeError, read_image
from headstart.images.index import find_images
from headstart.images.loader import ImageLoader
from headstart.views.render import make_views
from headstart.views.spec import ViewSpec


def random(channels: int, number: int = 0, kind: type = np.uint8) -> np.ndarray:
    most = np.iinfo(kind).max
    return np.random.default_rng(number).integers(0, most, (40, 60, channels), dtype=kind, endpoint=True)


def pages(path: Path, image: np.ndarray) -> Path:
    """A TIFF with each channel as a page, as Ultralytics writes multispectral images."""
    assert cv2.imwritemulti(str(path), [np.ascontiguousarray(image[..., page]) for page in range(image.shape[2])])
    return path


def dataset(folder: Path, channels: object) -> str:
    (folder / "images").mkdir(exist_ok=True)
    (folder / "data.yaml").write_text(f"path: {folder}\ntrain: images\nval: images\nchannels: {channels}\nnames: [a]\n")
    return str(folder / "data.yaml")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.bmp"])
def test_gray_is_that_of_ultralytics(name: str, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / name), random(3))
    found = read_image(tmp_path / name, channels=1)
    assert found.shape == (40, 60, 1)
    assert np.array_equal(found, imread(str(tmp_path / name), cv2.IMREAD_GRAYSCALE))
    assert read_image(tmp_path / name, max_area=600, channels=1).shape == (20, 30, 1)


@pytest.mark.parametrize(("channels", "kind"), [(4, np.uint8), (4, np.uint16), (10, np.uint8), (2, np.uint8)])
def test_pages_are_channels(channels: int, kind: type, tmp_path: Path) -> None:
    path = pages(tmp_path / "a.tiff", random(channels, kind=kind))
    found = read_image(path, channels=channels)
    assert np.array_equal(found, imread(str(path), cv2.IMREAD_UNCHANGED))
    assert read_image(path, max_area=600, channels=channels).shape == (20, 30, channels)


def test_a_fourth_channel_of_a_png_keeps_its_place(tmp_path: Path) -> None:
    image = random(4)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    assert np.array_equal(read_image(tmp_path / "a.png", channels=4), image)  # blue, green, red, the fourth
    assert np.array_equal(read_image(tmp_path / "a.png", channels=4), imread(str(tmp_path / "a.png"), -1))


def test_other_numbers_of_channels_are_no_images_of_the_data_set(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), random(3))
    film = films.written(tmp_path / "clip.avi", [3])
    more = pages(tmp_path / "b.tif", random(6))
    for path in (tmp_path / "a.png", f"{film}#frame=000000"):
        with pytest.raises(DecodeError, match="it has 3 channels, not the 4 of the data set"):
            read_image(path, channels=4)
    with pytest.raises(DecodeError, match="it has more than the 4 channels of the data set"):
        read_image(more, channels=4)
    gray = read_image(f"{film}#frame=000000", channels=1)
    assert films.number_of(np.repeat(gray, 3, 2)) == 3


def test_a_dataset_yaml_says_how_many(tmp_path: Path) -> None:
    data = dataset(tmp_path, 4)
    for number in range(3):
        pages(tmp_path / f"images/{number}.tif", random(4, number))
    (tmp_path / "val").mkdir()
    yaml = Path(data).read_text().replace("val: images", "val: val")
    Path(data).write_text(yaml)
    index = find_images(data)
    assert (len(index), index.channels, index.subset([1]).channels) == (3, 4, 4)
    assert find_images(str(tmp_path / "images")).channels == 3
    assert find_images([data, str(tmp_path / "images")]).channels == 4
    (tmp_path / "gray.yaml").write_text(yaml.replace("channels: 4", "channels: 1"))
    with pytest.raises(UserError, match=r"has images of 4 channels, .*gray\.yaml of 1"):
        find_images([data, str(tmp_path / "gray.yaml")])
    for wrong in ("0", "many", "2.5", "1000"):
        Path(data).write_text(yaml.replace("channels: 4", f"channels: {wrong}"))
        with pytest.raises(UserError, match="channels must be a whole number up to 64"):
            find_images(data)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("kind", ["disk", "device"])
def test_they_go_through_store_and_loader(channels: int, kind: str, tmp_path: Path) -> None:
    data = dataset(tmp_path, channels)
    Path(data).write_text(Path(data).read_text().replace("val: images", "val: none"))
    images = [random(channels, number) for number in range(4)]
    for number, image in enumerate(images):
        pages(tmp_path / f"images/{number}.tif", image)
    index = find_images(data)
    for _ in range(2):  # the second time from what was kept
        with open_cache(kind, index, None, folder=tmp_path / "cache") as cache:
            loader = ImageLoader(index, batch=4, max_area=None, workers=0, seed=0, steps=1, reader=cache.reader)
            (batch,) = loader
            assert batch.pixels.shape == (4, channels, 40, 60)
            for row, pixels in zip(batch.indices.tolist(), batch.pixels, strict=True):
                assert np.array_equal(pixels.permute(1, 2, 0).numpy(), images[row])


@pytest.mark.parametrize("channels", [1, 4])
def test_views_change_places_and_light_but_no_colors(channels: int) -> None:
    pixels = torch.from_numpy(random(channels)).permute(2, 0, 1)[None].contiguous()
    size, generator = torch.tensor([[40, 60]]), torch.Generator().manual_seed(0)
    colors = ViewSpec("view", 32, (1.0, 1.0), (1.5, 1.5), jitter=1.0, saturation=0.9, hue=0.5, gray=1.0, flip=0.0)
    plain = ViewSpec("view", 32, (1.0, 1.0), (1.5, 1.5), jitter=0.0, gray=0.0, flip=0.0, blur=0.0)
    only = {"brightness": 0.0, "contrast": 0.0, "blur": 0.0, "solarize": 0.0}
    changed = make_views(pixels, size, [ViewSpec(**{**vars(colors), **only})], generator)[0].images
    same = make_views(pixels, size, [plain], torch.Generator().manual_seed(0))[0].images
    assert changed.shape == (1, channels, 32, 32)
    assert torch.equal(changed, same)
    light = ViewSpec(**{**vars(colors), **only, "brightness": 0.5, "contrast": 0.5})
    assert not torch.equal(make_views(pixels, size, [light], generator)[0].images, same)
