"""Pictures that announce more than fits are refused from their header, without being decoded."""

from __future__ import annotations

import contextlib
import os
import struct
import time
import zlib

import cv2
import numpy as np
import pytest

from runtime.errors import InputError
from runtime.picture_size import picture_size_wh
from runtime.pictures import MAX_PIXELS
from runtime.video import open_source, read_image

HUGE = 30_000  # squared: 900 megapixels


def png(width, height):
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


def jpeg(width, height, before=b""):
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, height, width, 3) + bytes([1, 17, 0, 2, 17, 0, 3, 17, 0])
    return b"\xff\xd8" + before + frame + b"\xff\xd9"


def bmp(width, height, header_size=40):
    sides = struct.pack("<HH" if header_size == 12 else "<ii", width, height)
    return b"BM" + struct.pack("<IIII", 54, 0, 54, header_size) + sides + struct.pack("<HH", 1, 24) + bytes(24)


def webp(chunk, body):
    return b"RIFF" + struct.pack("<I", 4 + 8 + len(body)) + b"WEBP" + chunk + struct.pack("<I", len(body)) + body


def webp_extended(width, height):
    return webp(b"VP8X", bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little"))


def webp_lossless(width, height):
    return webp(b"VP8L", b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14) + bytes(8))


def webp_lossy(width, height):
    return webp(b"VP8 ", b"\x10\0\0\x9d\x01\x2a" + struct.pack("<HH", width | 1 << 14, height | 2 << 14) + bytes(8))


def tiff(width, height, order="<", big=False, tile=(16, 16), again=()):
    entries = [(256, width), (257, height), (258, 8), (322, tile[0]), (323, tile[1]), *again]
    word, kind = ("Q", 16) if big else ("I", 4)
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if big else 42)
    head += struct.pack(order + "HHQ", 8, 0, 16) if big else struct.pack(order + "I", 8)
    body = b"".join(struct.pack(order + f"HH{word}{word}", tag, kind, 1, value) for tag, value in entries)
    return head + struct.pack(order + ("Q" if big else "H"), len(entries)) + body + bytes(8)


HEADERS = {
    "png": (png, ".png"),
    "jpeg": (jpeg, ".jpg"),
    "bmp": (bmp, ".bmp"),
    "webp extended": (webp_extended, ".webp"),
    "tiff": (tiff, ".tif"),
    "tiff, big endian": (lambda w, h: tiff(w, h, ">"), ".tif"),
    "bigtiff": (lambda w, h: tiff(w, h, big=True), ".tif"),
    "bigtiff, big endian": (lambda w, h: tiff(w, h, ">", big=True), ".tif"),
    "bmp from the top down": (lambda w, h: bmp(w, -h), ".bmp"),
    "bmp of OS/2": (lambda w, h: bmp(w, h, 12), ".bmp"),
    "jpeg behind fill bytes": (lambda w, h: jpeg(w, h, b"\xff\xff\xff\xfe\0\4ab"), ".jpg"),
}


@pytest.mark.parametrize(("build", "extension"), HEADERS.values(), ids=HEADERS)
def test_a_huge_picture_is_refused_from_its_header(tmp_path, monkeypatch, build, extension):
    path = tmp_path / f"huge{extension}"
    path.write_bytes(build(HUGE, HUGE - 1))
    monkeypatch.setattr(cv2, "imdecode", lambda *args: pytest.fail("decoded"))
    started = time.process_time()
    with pytest.raises(InputError, match=r"huge.*has 30000 x 29999 px, legal are 64 megapixels at most"):
        read_image(path)
    assert time.process_time() - started < 0.1


@pytest.mark.parametrize("build", [webp_lossless, webp_lossy], ids=["lossless", "lossy"])
def test_the_simple_forms_of_webp(tmp_path, build):
    (tmp_path / "huge.webp").write_bytes(build(16_383, 8_001))
    with pytest.raises(InputError, match="16383 x 8001 px"):
        read_image(tmp_path / "huge.webp")


def test_a_tile_larger_than_the_picture_counts(tmp_path):
    (tmp_path / "huge.tif").write_bytes(tiff(16, 16, tile=(HUGE, HUGE)))
    with pytest.raises(InputError, match="30000 x 30000 px"):
        read_image(tmp_path / "huge.tif")


def test_a_side_that_is_there_twice_counts_as_the_larger(tmp_path):
    """Which of the two a decoder takes is its own affair."""
    for first, second in ((HUGE, 16), (16, HUGE)):
        (tmp_path / "huge.tif").write_bytes(tiff(first, first, again=[(256, second), (257, second)]))
        with pytest.raises(InputError, match="30000 x 30000 px"):
            read_image(tmp_path / "huge.tif")


@pytest.mark.parametrize("size_wh", [(1, 1), (17, 5), (640, 480), (4000, 3)])
@pytest.mark.parametrize("extension", [".png", ".jpg", ".bmp", ".webp", ".tif"])
def test_the_size_is_that_of_the_decoded_picture(extension, size_wh):
    image = np.zeros((size_wh[1], size_wh[0], 3), np.uint8)
    for parameters in ([], [cv2.IMWRITE_WEBP_QUALITY, 101] if extension == ".webp" else []):
        assert picture_size_wh(cv2.imencode(extension, image, parameters)[1].tobytes()) == size_wh


def test_progressive_jpeg_has_a_size():
    encoded = cv2.imencode(".jpg", np.zeros((30, 50, 3), np.uint8), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1]
    assert picture_size_wh(encoded.tobytes()) == (50, 30)


def test_exif_with_a_thumbnail_is_jumped_over_and_obeyed(tmp_path):
    """Orientation 6: the picture is turned by a quarter. The thumbnail's own frame header lies in the segment."""
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 0) + jpeg(HUGE, HUGE)
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    encoded = cv2.imencode(".jpg", np.zeros((30, 50, 3), np.uint8))[1].tobytes()
    (tmp_path / "turned.jpg").write_bytes(encoded[:2] + segment + encoded[2:])
    assert read_image(tmp_path / "turned.jpg").shape == (50, 30, 3)


@pytest.mark.parametrize("build", [build for build, _ in HEADERS.values()], ids=list(HEADERS))
def test_a_header_cut_off_anywhere_is_an_error_of_ours(tmp_path, build):
    header = build(30, 20)
    for length in range(len(header)):
        (tmp_path / "cut.jpg").write_bytes(header[:length])
        with pytest.raises(InputError, match="cannot be decoded"):
            read_image(tmp_path / "cut.jpg")


@pytest.mark.parametrize(
    "content",
    [
        b"P6\n100000 100000\n255\n",
        b"#?RADIANCE\n\n-Y 99999 +X 99999\n",
        b"\0\0\0\x0cjP  \r\n\x87\n",
        b"GIF89a" + bytes(9),
    ],
    ids=["pnm", "radiance", "jpeg 2000", "gif"],
)
def test_what_cannot_be_measured_is_refused(tmp_path, monkeypatch, content):
    monkeypatch.setattr(cv2, "imdecode", lambda *args: pytest.fail("decoded"))
    (tmp_path / "a.jpg").write_bytes(content + bytes(100))
    with pytest.raises(InputError, match="PNG, JPEG, BMP, WebP and TIFF can be read"):
        read_image(tmp_path / "a.jpg")


def test_64_megapixels_are_read(tmp_path):
    cv2.imwrite(str(tmp_path / "large.png"), np.zeros((8000, 8000), np.uint8))
    assert read_image(tmp_path / "large.png").shape[0] * 8000 == MAX_PIXELS


def test_a_file_of_many_gigabytes_is_not_read(tmp_path):
    with (tmp_path / "sparse.png").open("wb") as file:
        file.write(png(8, 8))
        file.truncate(50 * 10**9)
    with pytest.raises(InputError, match="50000000000 bytes"):
        read_image(tmp_path / "sparse.png")


def test_a_pipe_in_a_folder_is_no_picture(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(InputError, match="no pictures there"):
        open_source(tmp_path)


def test_any_bytes_behind_a_known_start_end_in_a_picture_or_an_error(tmp_path):
    """Changed bytes in small pictures of every format: never another exception, never more than 64 megapixels."""
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    for extension in (".png", ".jpg", ".bmp", ".webp", ".tif"):
        encoded = cv2.imencode(extension, image)[1].tobytes()
        for _ in range(20):
            changed = bytearray(encoded)
            for position in random.integers(0, min(len(changed), 80), 3):
                changed[position] = random.integers(0, 256)
            (tmp_path / f"a{extension}").write_bytes(changed)
            with contextlib.suppress(InputError):
                assert read_image(tmp_path / f"a{extension}").size <= 3 * MAX_PIXELS


@pytest.mark.parametrize("name", ["film.mp4", "picture.gif", "picture"])
def test_another_name_does_not_hide_a_huge_picture(tmp_path, name):
    """OpenCV's readers of videos decode pictures, too."""
    (tmp_path / name).write_bytes(png(HUGE, HUGE))
    with open_source(tmp_path / name) as source, pytest.raises(InputError, match="legal are 64 megapixels"):
        list(source)


def test_a_picture_under_another_name_is_a_picture(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    (tmp_path / "film.mp4").write_bytes(cv2.imencode(".png", image)[1].tobytes())
    with open_source(tmp_path / "film.mp4") as source:
        assert source.kind == "image"
        np.testing.assert_array_equal(next(iter(source)).image, image)


def test_a_film_of_huge_frames_is_refused(tmp_path, moving_dots, monkeypatch):
    monkeypatch.setattr("runtime.video_file.MAX_PIXELS", 320 * 240 - 1)
    with pytest.raises(InputError, match="320 x 240 px"):
        open_source(moving_dots[0])
