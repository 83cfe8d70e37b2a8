from __future__ import annotations

import io
import os
import pickle
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from headstart.images import decode as module
from headstart.images.decode import DecodeError, decode, read_image

RNG = np.random.default_rng(0)
RGB = (RNG.integers(0, 120, (61, 90, 3)) + np.arange(90)[None, :, None]).astype(np.uint8)
PICTURE = Image.fromarray(RGB)
DEEP = (RGB.astype(np.uint16) << 8) + RNG.integers(0, 256, RGB.shape).astype(np.uint16)


def pil(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def opencv(suffix: str, image: np.ndarray, *options: int) -> bytes:
    done, data = cv2.imencode(suffix, image, options)
    assert done
    return data.tobytes()


def oriented(kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return pil(PICTURE, kind, exif=exif)


def adobe_cmyk() -> bytes:
    return pil(PICTURE.convert("CMYK"), "JPEG", quality=90)


def with_thumbnail() -> bytes:
    """A JPEG whose EXIF segment holds a whole small JPEG, with an end marker of its own."""
    thumbnail = pil(PICTURE.resize((16, 16)), "JPEG")
    body = b"Exif\0\0" + thumbnail
    plain = pil(PICTURE, "JPEG")
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + plain[2:]


ALPHA = Image.fromarray(np.dstack([RGB, RGB[..., 1]]))
PALETTE = PICTURE.convert("P")
TRANSPARENT_PALETTE = ALPHA.quantize(64)
GREY_ALPHA = Image.merge("LA", [PICTURE.convert("L"), PICTURE.getchannel("R")])
GREY16 = DEEP[..., 0]
BGRA16 = np.dstack([DEEP, DEEP[..., 0]])

GOOD: dict[str, bytes] = {
    "rgb.jpg": pil(PICTURE, "JPEG"),
    "rgb.JPEG": pil(PICTURE, "JPEG", subsampling=0, quality=97),
    "progressive.jpg": pil(PICTURE, "JPEG", progressive=True),
    "restart.jpg": opencv(".jpg", RGB, cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
    "gray.jpg": pil(PICTURE.convert("L"), "JPEG"),
    "cmyk.jpg": adobe_cmyk(),
    "thumbnail.jpg": with_thumbnail(),
    "rgb.png": pil(PICTURE, "PNG"),
    "gray.png": pil(PICTURE.convert("L"), "PNG"),
    "bits1.png": pil(PICTURE.convert("1"), "PNG"),
    "rgba.png": pil(ALPHA, "PNG"),
    "la.png": pil(GREY_ALPHA, "PNG"),
    "palette.png": pil(PALETTE, "PNG"),
    "palette4.png": pil(PICTURE.quantize(16), "PNG", bits=4),
    "palette_alpha.png": pil(TRANSPARENT_PALETTE, "PNG"),
    "rgb16.png": opencv(".png", DEEP),
    "rgba16.png": opencv(".png", BGRA16),
    "grey16.png": opencv(".png", GREY16),
    "rgb.webp": pil(PICTURE, "WEBP"),
    "lossless.webp": pil(PICTURE, "WEBP", lossless=True),
    "rgba.webp": pil(ALPHA, "WEBP"),
    "animated.webp": pil(PICTURE, "WEBP", save_all=True, append_images=[PICTURE.rotate(180)]),
    "rgb.bmp": pil(PICTURE, "BMP"),
    "gray.bmp": pil(PICTURE.convert("L"), "BMP"),
    "palette.bmp": pil(PALETTE, "BMP"),
    "bits1.bmp": pil(PICTURE.convert("1"), "BMP"),
    "rgba.bmp": pil(ALPHA, "BMP"),
    "rgb.tif": pil(PICTURE, "TIFF"),
    "rgb.TIFF": pil(PICTURE, "TIFF", compression="tiff_lzw"),
    "deflate.tif": pil(PICTURE, "TIFF", compression="tiff_adobe_deflate"),
    "jpeg.tif": pil(PICTURE, "TIFF", compression="jpeg"),
    "gray.tif": pil(PICTURE.convert("L"), "TIFF"),
    "bits1.tif": pil(PICTURE.convert("1"), "TIFF", compression="group4"),
    "rgba.tif": pil(ALPHA, "TIFF"),
    "la.tif": pil(GREY_ALPHA, "TIFF"),
    "palette.tif": pil(PALETTE, "TIFF"),
    "cmyk.tif": pil(PICTURE.convert("CMYK"), "TIFF"),
    "rgb16.tif": opencv(".tif", DEEP),
    "rgba16.tif": opencv(".tif", BGRA16),
    "grey16.tiff": opencv(".tif", GREY16),
    "pages.tif": pil(PICTURE, "TIFF", save_all=True, append_images=[PICTURE.resize((20, 30))]),
    "grey_pages.tif": pil(PICTURE.convert("L"), "TIFF", save_all=True, append_images=[PICTURE.convert("L")]),
    "big.tif": pil(PICTURE, "TIFF", big_tiff=True),
    # Names that lie: Ultralytics goes by the content, but for .tif, where it goes by the name.
    "png_named.jpg": pil(PICTURE, "PNG"),
    "tiff_named.png": pil(ALPHA, "TIFF"),
    "turned_jpeg_named.tif": oriented("JPEG", 6),
    "turned_tiff_named.jpg": oriented("TIFF", 6),
    "cmyk_named.tif": adobe_cmyk(),
    "rgb16_named.tif": opencv(".png", DEEP),
    "trailing.jpg": pil(PICTURE, "JPEG") + b"\r\n--boundary--" * 3,
    "zeros_after.jpg": pil(PICTURE, "JPEG") + bytes(5000),
    "second_image_after.jpg": pil(PICTURE, "JPEG") + pil(PICTURE.rotate(90), "JPEG")[:-700],
    "trailing.png": pil(PICTURE, "PNG") + b"\n",
    "trailing.webp": pil(PICTURE, "WEBP") + b"\n",
    "trailing.bmp": pil(PICTURE, "BMP") + b"\n",
    "trailing.tif": pil(PICTURE, "TIFF") + b"\n",
    "one_pixel.png": pil(PICTURE.resize((1, 1)), "PNG"),
    "grüße 写真.jpg": pil(PICTURE, "JPEG"),
}
for _kind, _suffix in (("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp"), ("TIFF", "tif")):
    GOOD |= {f"turned{turn}.{_suffix}": oriented(_kind, turn) for turn in range(1, 9)}


@pytest.mark.parametrize("name", GOOD)
def test_pixels_are_those_of_ultralytics(name: str, tmp_path) -> None:
    from ultralytics.utils.patches import imread

    path = tmp_path / name
    path.write_bytes(GOOD[name])
    expected = imread(str(path))
    assert expected is not None, "OpenCV cannot read it: not a good file"
    pixels = read_image(path)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, expected[..., ::-1])


def test_orientation_is_applied_to_all_but_tiff() -> None:
    upright = {
        suffix: decode(GOOD[f"turned6.{suffix}"], suffix=f".{suffix}").shape for suffix in ("jpg", "png", "webp")
    }
    assert set(upright.values()) == {(90, 61, 3)}


def test_lossless_pixels_are_the_picture() -> None:
    for name in ("rgb.png", "rgba.png", "rgb.bmp", "rgb.tif", "lossless.webp", "rgb.TIFF"):
        np.testing.assert_array_equal(decode(GOOD[name]), RGB)
    np.testing.assert_array_equal(decode(GOOD["rgb16.png"]), (DEEP >> 8)[..., ::-1])
    np.testing.assert_array_equal(decode(GOOD["rgb16.tif"]), (DEEP >> 8)[..., ::-1])


CUT = [name for name in GOOD if not name.startswith(("trailing", "zeros", "second", "one_pixel", "turned", "pages"))]


@pytest.mark.parametrize("name", CUT)
def test_truncated_files_are_refused(name: str) -> None:
    """Cut anywhere, a file is an error. Formats that keep data behind the pixels may still give all of them."""
    data, suffix = GOOD[name], Path(name).suffix
    whole = decode(data, suffix=suffix)
    for share in (0.001, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 0.99):
        cut = data[: max(1, int(len(data) * share))]
        try:
            pixels = decode(cut, suffix=suffix)
        except DecodeError:
            continue
        assert suffix.lower() in (".tif", ".tiff", ".webp"), f"cut at {share}"
        np.testing.assert_array_equal(pixels, whole)


@pytest.mark.parametrize("name", ["rgb.jpg", "progressive.jpg", "thumbnail.jpg", "rgb.png"])
@pytest.mark.parametrize("fill", [b"", b"\0"])
def test_missing_end_is_named(name: str, fill: bytes) -> None:
    half = len(GOOD[name]) // 2 if name != "thumbnail.jpg" else len(GOOD[name]) - 500
    data = GOOD[name][:half] + fill * 4000  # a download that stopped, into a file of the full size
    with pytest.raises(DecodeError, match=r"truncated (JPEG|PNG) file: its end is missing"):
        decode(data)


def claims(width: int, height: int, kind: str) -> bytes:
    """A tiny file whose header claims `width` x `height` pixels."""
    if kind == "png":
        header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
        return b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IEND\xaeB`\x82"
    if kind == "bmp":
        data = bytearray(GOOD["rgb.bmp"])
        struct.pack_into("<ii", data, 18, width, -height)
        return bytes(data)
    if kind == "jpg":
        data = bytearray(GOOD["rgb.jpg"])
        struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, height, width)
        return bytes(data)
    data = bytearray(GOOD["rgb.tif"])
    directory = struct.unpack_from("<I", data, 4)[0]
    for entry in range(struct.unpack_from("<H", data, directory)[0]):
        tag = struct.unpack_from("<H", data, directory + 2 + 12 * entry)[0]
        if tag in (256, 257):
            struct.pack_into("<HHII", data, directory + 2 + 12 * entry, tag, 4, 1, width if tag == 256 else height)
    return bytes(data)


@pytest.mark.parametrize("kind", ["png", "bmp", "jpg", "tif"])
def test_decompression_bomb_is_refused_before_decoding(kind: str, monkeypatch) -> None:
    monkeypatch.setattr(module, "_opencv", lambda *_: pytest.fail("decoded"))
    with pytest.raises(DecodeError, match="too large: 60000 x 50000 pixels"):
        decode(claims(60000, 50000, kind))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"not an image at all\n", "not an image"),
        (b"<!DOCTYPE html><html>404</html>", "not an image"),
        (bytes(4096), "not an image"),
        (b"\xff\xd8\xff", "truncated JPEG file: its header ends too early"),
        (b"\x89PNG\r\n\x1a\nIEND\xaeB`\x82", "truncated PNG file: its header ends too early"),
        (b"BM", "truncated BMP file: its header ends too early"),
        (b"II*\0", "truncated TIFF file: its header ends too early"),
        (b"RIFF\xff\xff\0\0WEBP", "truncated WebP file: its end is missing"),
    ],
)
def test_what_is_no_image(data: bytes, reason: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(data)
    assert caught.value.reason == reason


def test_damaged_png_is_refused(capfd) -> None:
    data = bytearray(GOOD["rgb.png"])
    data[len(data) // 2] ^= 0x55
    with pytest.raises(DecodeError, match="damaged or truncated PNG file"):
        decode(bytes(data))
    assert "[ WARN" not in capfd.readouterr().err


def test_random_bytes_never_raise_anything_else() -> None:
    random = np.random.default_rng(1)
    for name in ("rgb.jpg", "rgb.png", "rgb.webp", "rgb.bmp", "rgb.tif", "big.tif"):
        for _ in range(40):
            data = bytearray(GOOD[name])
            for at in random.integers(0, min(len(data), 400), 6):
                data[at] = random.integers(256)
            try:
                pixels = decode(bytes(data))
            except DecodeError:
                continue
            assert pixels.ndim == 3


def test_unreadable_paths(tmp_path) -> None:
    (tmp_path / "x.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    for name, reason in {
        "x.jpg": "a folder, not a file",
        "pipe.jpg": "not an ordinary file",
        "gone.jpg": "no such file",
        "absent.jpg": "no such file",
        "loop.jpg": "cannot be read: Too many levels",
        "a\0b.jpg": "cannot be read: ",
    }.items():
        with pytest.raises(DecodeError) as caught:
            read_image(f"{tmp_path}/{name}")
        assert caught.value.reason.startswith(reason)


def test_no_permission(tmp_path, monkeypatch) -> None:
    path = tmp_path / "locked.jpg"
    path.write_bytes(GOOD["rgb.jpg"])
    path.chmod(0)
    if os.access(path, os.R_OK):  # the superuser reads everything: let the system refuse another way

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(DecodeError, match="no permission to read it"):
        read_image(path)


def test_error_survives_a_process_boundary() -> None:
    assert pickle.loads(pickle.dumps(DecodeError("empty file"))).reason == "empty file"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
@pytest.mark.parametrize("shape", [(600, 800), (800, 600), (3, 2000)])
def test_max_area(suffix: str, shape: tuple[int, int]) -> None:
    ramp = np.linspace(0, 255, shape[1], dtype=np.float32)
    image = np.broadcast_to(ramp[None, :, None], (*shape, 3)).astype(np.uint8)
    data = opencv(suffix, np.ascontiguousarray(image))
    small = decode(data, max_area=5000)
    height, width = small.shape[:2]
    assert 5000 * 0.9 - 2 * max(height, width) <= height * width <= 5000
    if min(height, width) > 10:
        assert width / height == pytest.approx(shape[1] / shape[0], rel=0.03)
    assert small.flags.c_contiguous
    expected = np.linspace(0, 255, width + 1)[:-1] + 127.5 / width
    np.testing.assert_allclose(small.mean(axis=(0, 2)), expected, atol=3)


def test_max_area_leaves_small_images_alone() -> None:
    for name in ("rgb.jpg", "rgb.png"):
        np.testing.assert_array_equal(decode(GOOD[name], max_area=61 * 90), decode(GOOD[name]))


def test_max_area_of_a_line() -> None:
    data = opencv(".png", np.zeros((1, 3000, 3), np.uint8))
    assert decode(data, max_area=50).shape == (1, 50, 3)


def test_jpeg_is_reduced_by_libjpeg_only_above_the_area(monkeypatch) -> None:
    data = opencv(".jpg", cv2.resize(RGB, (1600, 1200)))
    asked = []
    whole = module._opencv
    monkeypatch.setattr(module, "_opencv", lambda b, t, n: asked.append(n) or whole(b, t, n))
    for area in (200 * 150, 200 * 150 + 1, 400 * 300 + 1, 800 * 600 + 1, None):
        decode(data, max_area=area)
    assert asked == [8, 4, 2, 1, 1]


def test_max_area_keeps_orientation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    small = decode(pil(PICTURE.resize((800, 400)), "JPEG", exif=exif), max_area=2000)
    assert small.shape[0] > 1.9 * small.shape[1]
