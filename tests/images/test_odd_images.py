"""Depths, claims, missing ends, rare formats, and storage that fails."""

from __future__ import annotations

import errno
import io
import os
import struct
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from headstart.errors import UserError
from headstart.images import decode as module
from headstart.images.decode import DecodeError, decode, read_image

RNG = np.random.default_rng(0)
RGB = (RNG.integers(0, 120, (61, 90, 3)) + np.arange(90)[None, :, None]).astype(np.uint8)
PICTURE = Image.fromarray(RGB)


def pil(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def opencv(suffix: str, image: np.ndarray) -> bytes:
    done, data = cv2.imencode(suffix, image)
    assert done
    return data.tobytes()


# -- depth ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jp2"])
@pytest.mark.parametrize("gray", [True, False])
def test_twelve_bits_in_sixteen_keep_their_levels(suffix: str, gray: bool) -> None:
    levels = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    image = levels if gray else np.dstack([levels, levels[::-1], levels[:, ::-1]])
    notes: list[str] = []
    pixels = decode(opencv(suffix, image), suffix=suffix, notes=notes)
    expected = np.repeat(image[..., None], 3, 2) if gray else image[..., ::-1]
    np.testing.assert_array_equal(pixels, (expected // 16).astype(np.uint8))
    assert len(np.unique(pixels)) == 256
    assert notes == ["12 bits in 16: scaled by 12 bits, of which Ultralytics sees the high byte"]


def test_all_sixteen_bits_give_the_high_byte_and_no_note() -> None:
    image = np.linspace(0, 65535, 4096).astype(np.uint16).reshape(64, 64)
    for suffix in (".png", ".tif"):
        notes: list[str] = []
        np.testing.assert_array_equal(decode(opencv(suffix, image), suffix=suffix, notes=notes)[..., 0], image >> 8)
        assert not notes


@pytest.mark.parametrize("gray", [True, False])
@pytest.mark.parametrize(
    ("values", "expected", "how"),
    [
        (np.arange(256) / 255, np.arange(256), "from 0 to 1"),
        (np.arange(256.0), np.arange(256), "from 0 to 255"),
        (np.arange(256) * 100.0 - 5000, np.arange(256), "by their least and greatest"),
        (np.arange(256) * 2e36 - 2.5e38, np.arange(256), "by their least and greatest"),
    ],
)
def test_floats_are_read_by_their_range(values: np.ndarray, expected: np.ndarray, how: str, gray: bool) -> None:
    image = values.astype(np.float32).reshape(16, 16)
    notes: list[str] = []
    pixels = decode(opencv(".tif", image if gray else np.dstack([image] * 3)), notes=notes)
    np.testing.assert_array_equal(pixels, np.repeat(expected.reshape(16, 16, 1), 3, 2))
    assert notes == [f"float32 pixels, scaled {how}"]


def test_floats_that_are_no_numbers() -> None:
    image = np.full((4, 4), np.nan, np.float32)
    assert decode(opencv(".tif", image)).max() == 0
    image[0, :2] = 3.0, 300.0
    assert decode(opencv(".tif", image))[..., 0].tolist()[0] == [0, 255, 0, 0]


# -- ends -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0, "quality": 97}])
@pytest.mark.parametrize("filled", [b"", bytes(3000)])
def test_a_jpeg_that_lacks_its_end_marker_alone_is_used(options: dict[str, object], filled: bytes, capfd) -> None:
    whole = pil(PICTURE, "JPEG", **options)
    assert whole.endswith(b"\xff\xd9")
    notes: list[str] = []
    np.testing.assert_array_equal(decode(whole[:-2] + filled, notes=notes), decode(whole))
    assert notes == ["JPEG without its end marker: nothing of the picture is missing"]
    for missing in (6, 40, len(whole) // 2):
        with pytest.raises(DecodeError, match="truncated JPEG file: its end is missing"):
            decode(whole[:-missing] + filled)
    assert not capfd.readouterr().err  # libjpeg would tear the progress display


# -- claims -----------------------------------------------------------------------------------------------------------


def claims(width: int, height: int) -> dict[str, bytes]:
    """Files whose first bytes claim so many pixels."""
    avif = bytearray(pil(PICTURE, "AVIF"))
    struct.pack_into(">II", avif, avif.index(b"ispe") + 8, width, height)
    jp2 = bytearray(opencv(".jp2", RGB))
    struct.pack_into(">II", jp2, jp2.index(b"\xff\x4f\xff\x51") + 8, width, height)
    return {
        "gif": b"GIF89a" + struct.pack("<HH", min(width, 65535), min(height, 65535)) + bytes(32),
        "avif": bytes(avif),
        "jp2": bytes(jp2),
        "pfm": b"PF\n%d %d\n-1\n" % (width, height) + bytes(64),
        "ppm": b"P6 # a comment\n%d\n%d 255\n" % (width, height) + bytes(64),
        "pam": b"P7\nWIDTH %d\nHEIGHT %d\nDEPTH 3\nMAXVAL 255\nENDHDR\n" % (width, height) + bytes(64),
        "hdr": b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y %d +X %d\n" % (height, width) + bytes(64),
        "ras": b"\x59\xa6\x6a\x95" + struct.pack(">IIIIII", width, height, 24, 0, 1, 0) + bytes(64),
    }


def nothing_decodes(monkeypatch) -> None:
    for name in ("_opencv", "_deep", "_pillow"):
        monkeypatch.setattr(module, name, lambda *_: pytest.fail("decoded"))


@pytest.mark.parametrize("kind", claims(1, 1))
def test_claims_are_looked_at_before_decoding(kind: str, monkeypatch) -> None:
    nothing_decodes(monkeypatch)
    with pytest.raises(DecodeError, match="too large: 32000 x 31000 pixels, more than"):
        decode(claims(32000, 31000)[kind], suffix=".jpg")
    with pytest.raises(DecodeError, match="a plain color or a false claim: 16000 x 15000 pixels in"):
        decode(claims(16000, 15000)[kind], suffix=".jpg")


@pytest.mark.parametrize("chunk", ["VP8X", "VP8L", "VP8 "])
def test_claims_of_webp(chunk: str, monkeypatch) -> None:
    nothing_decodes(monkeypatch)
    side = 16000
    body = {
        "VP8X": bytes(4) + (side - 1).to_bytes(3, "little") * 2,
        "VP8L": b"\x2f" + struct.pack("<I", (side - 1) | (side - 1) << 14),
        "VP8 ": b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", side, side),
    }[chunk] + bytes(40)
    data = b"WEBP" + chunk.encode() + struct.pack("<I", len(body)) + body
    with pytest.raises(DecodeError, match="a plain color or a false claim: 16000 x 16000 pixels in"):
        decode(b"RIFF" + struct.pack("<I", len(data)) + data)


def test_what_one_machine_cannot_decode_is_told(monkeypatch) -> None:
    data = pil(Image.new("RGB", (3000, 2000)), "PNG")
    decode(data)
    nothing_decodes(monkeypatch)
    monkeypatch.setattr(module, "_room", lambda: 3000 * 2000 * 9 - 1)
    with pytest.raises(DecodeError, match=r"too large: 3000 x 2000 pixels take 0\.1 GiB to decode"):
        decode(data)


def test_a_large_jpeg_is_scaled_down_while_it_is_decoded(monkeypatch) -> None:
    data = pil(Image.new("RGB", (3000, 2000)), "JPEG")
    monkeypatch.setattr(module, "_room", lambda: 3000 * 2000)
    with pytest.raises(DecodeError, match="too large"):
        decode(data)
    assert decode(data, max_area=300 * 200).shape == (200, 300, 3)


@pytest.mark.parametrize("fill", [b"\0", b"\xff", b"\xff\xd0", b"\xff\xe0\0\2"])
def test_a_jpeg_without_a_picture_costs_no_time(fill: bytes) -> None:
    data = b"\xff\xd8\xff" + fill * (20_000_000 // len(fill))
    began = time.process_time()
    with pytest.raises(DecodeError, match="JPEG file"):
        decode(data)
    assert time.process_time() - began < 0.5


# -- formats ----------------------------------------------------------------------------------------------------------

OTHER = PICTURE.rotate(180)
FORMATS = {
    "rgb.avif": pil(PICTURE, "AVIF"),
    "animated.avif": pil(PICTURE, "AVIF", save_all=True, append_images=[OTHER]),
    "avif_named.jpg": pil(PICTURE, "AVIF"),
    "rgb.jp2": opencv(".jp2", RGB),
    "pil.jp2": pil(PICTURE, "JPEG2000"),
    "two.mpo": pil(PICTURE, "MPO", save_all=True, append_images=[OTHER]),
    "rgb.dng": pil(PICTURE, "TIFF"),
    "animated_named.png": pil(PICTURE, "GIF", save_all=True, append_images=[OTHER]),
    "animated.png": pil(PICTURE, "PNG", save_all=True, append_images=[OTHER]),
    "ppm_named.png": opencv(".ppm", RGB),
    "ras_named.bmp": opencv(".ras", RGB),
    "deep_ppm_named.png": opencv(".ppm", RGB.astype(np.uint16) * 257),
}


@pytest.mark.parametrize("name", FORMATS)
def test_formats_are_read_as_ultralytics_reads_them(name: str, tmp_path: Path) -> None:
    from ultralytics.utils.patches import imread

    path = tmp_path / name
    path.write_bytes(FORMATS[name])
    expected = imread(str(path))
    assert expected is not None
    np.testing.assert_array_equal(read_image(path), expected[..., ::-1])


def test_heic_is_told_what_it_needs() -> None:
    data = b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf" + b"\0\0\0\x14ispe\0\0\0\0" + struct.pack(">II", 40, 30)
    with pytest.raises(DecodeError, match="HEIC file: it can be read when pi-heif is installed"):
        decode(data, suffix=".heic")


# -- storage that fails -----------------------------------------------------------------------------------------------


def failing(monkeypatch, code: int, times: int) -> list[float]:
    """Let `os.stat` fail so often; the waits between the tries."""
    waits: list[float] = []
    real = os.stat
    left = [times]

    def stat(path, *args, **kwargs):
        if str(path).endswith("odd.png") and left[0]:
            left[0] -= 1
            raise OSError(code, os.strerror(code))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(module.os, "stat", stat)
    monkeypatch.setattr(module.time, "sleep", waits.append)
    return waits


@pytest.mark.parametrize("name", ["EIO", "ESTALE", "EMFILE", "ETIMEDOUT", "ENFILE", "EHOSTDOWN"])
def test_storage_that_fails_for_a_moment_is_waited_for(name: str, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "odd.png"
    path.write_bytes(opencv(".png", RGB))
    waits = failing(monkeypatch, getattr(errno, name), 3)
    np.testing.assert_array_equal(read_image(path), RGB[..., ::-1])
    assert waits == sorted(waits)
    assert len(waits) == 3


@pytest.mark.parametrize("name", ["EIO", "EMFILE"])
def test_storage_that_goes_on_failing_stops_the_run(name: str, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "odd.png"
    path.write_bytes(opencv(".png", RGB))
    waits = failing(monkeypatch, getattr(errno, name), 99)
    with pytest.raises(UserError, match=f"{os.strerror(getattr(errno, name))}, 5 times in 6 seconds") as caught:
        read_image(path)
    assert len(waits) == 4
    assert str(path) in str(caught.value)
    assert ("ulimit -n" if name == "EMFILE" else "network drive") in str(caught.value)


def test_a_file_that_is_at_fault_itself_is_not_waited_for(tmp_path: Path, monkeypatch) -> None:
    waits = failing(monkeypatch, errno.ENAMETOOLONG, 99)
    with pytest.raises(DecodeError, match="cannot be read: File name too long"):
        read_image(tmp_path / "odd.png")
    assert not waits


def test_four_letters_within_what_is_compressed_are_no_size() -> None:
    """In one of 4,000 large files they are there by chance, and were taken for a size of any kind."""
    data = pil(PICTURE, "AVIF")
    box = b"ispe" + bytes(4) + b"\xa1\xb2\xc3\xd4\xe5\xf6\x07\x18"
    found = decode(data + struct.pack(">I", 8 + len(box)) + b"free" + box, suffix=".avif")
    np.testing.assert_array_equal(found, decode(data, suffix=".avif"))
