"""Videos with a broken part: read to their end, and what is missing is said."""

from __future__ import annotations

import logging
import shutil
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import dots_image

from runtime.video import open_source

NUM_FRAMES, SIZE_WH = 120, (160, 120)
REAL_CLIP = Path(__file__).parent.parent.parent / "shared/data/video/intel_person_f500_f700_20s.mp4"
CODECS = {".mp4": "mp4v", ".avi": "MJPG", ".mkv": "mp4v"}


def write_clip(path: Path, fps: float = 10) -> list[np.ndarray]:
    """A dot that moves to the right, one pixel a frame, over a texture that codecs cannot shrink; what was written."""
    texture = np.random.default_rng(0).integers(0, 60, (SIZE_WH[1], SIZE_WH[0], 3), dtype=np.uint8)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*CODECS[path.suffix]), fps, SIZE_WH)
    frames = []
    for index in range(NUM_FRAMES):
        dots = np.array([[20.0 + index, 60], [20.0 + index, 60], [20.0 + index, 60]])
        shifted = np.roll(texture, 37 * index, axis=(0, 1))
        frames.append(np.maximum(dots_image(SIZE_WH, dots, radius=16), shifted))
        writer.write(frames[-1])
    writer.release()
    return frames


def break_middle(path: Path, share: float) -> None:
    """Overwrite a share of the file in its middle with noise."""
    content = bytearray(path.read_bytes())
    length = int(share * len(content))
    start = (len(content) - length) // 2
    content[start : start + length] = np.random.default_rng(1).bytes(length)
    path.write_bytes(content)


@pytest.fixture
def clip(tmp_path, request):
    path = tmp_path / f"clip{request.param}"
    write_clip(path)
    return path


@pytest.mark.parametrize("clip", list(CODECS), indirect=True)
def test_a_whole_video_has_nothing_to_report(clip, caplog):
    with caplog.at_level(logging.WARNING), open_source(clip) as source:
        frames = list(source)
    assert [frame.index for frame in frames] == list(range(NUM_FRAMES))
    assert not source.faults and not caplog.text


@pytest.mark.parametrize("share", [0.05, 0.2])
@pytest.mark.parametrize("clip", [".mp4", ".mkv"], indirect=True)
def test_what_lies_behind_a_broken_part_is_read_and_the_gap_is_said(clip, share, caplog):
    break_middle(clip, share)
    with caplog.at_level(logging.WARNING), open_source(clip) as source:
        frames = list(source)
    columns = [int(frame.image[50:70].mean(axis=(0, 2)).argmax()) for frame in frames]
    stamps = np.array([round(frame.time_s * 10) for frame in frames])
    assert 0.5 * NUM_FRAMES < len(frames) < NUM_FRAMES
    assert stamps[-1] == NUM_FRAMES - 1 and (np.diff(stamps) > 0).all()
    assert np.mean(np.abs(np.array(columns) - (20 + stamps)) <= 8) > 0.9  # time stamps tell which frames are missing
    assert source.faults and ("goes on at frame" in caplog.text or "no frame can be read between" in caplog.text)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.4])
@pytest.mark.parametrize("clip", [".avi"], indirect=True)
def test_motion_jpeg_goes_on_behind_a_broken_part(clip, share, caplog):
    break_middle(clip, share)
    with caplog.at_level(logging.WARNING), open_source(clip) as source:
        frames = list(source)
    assert (1 - share) * NUM_FRAMES - 15 <= len(frames) < NUM_FRAMES
    assert source.faults == {"frames missing": NUM_FRAMES - len(frames)}
    assert f"{len(frames)} of {NUM_FRAMES} frames could be read" in caplog.text
    last_column = int(frames[-1].image[50:70].mean(axis=(0, 2)).argmax())
    assert abs(last_column - (20 + NUM_FRAMES - 1)) <= 8


@pytest.mark.parametrize("share", [0.02, 0.03])
def test_a_hole_too_short_for_a_gap_is_counted(tmp_path, share, caplog):
    write_clip(tmp_path / "clip.mkv", fps=60)
    break_middle(tmp_path / "clip.mkv", share)
    with caplog.at_level(logging.WARNING), open_source(tmp_path / "clip.mkv") as source:
        frames = list(source)
    assert source.faults == {"frames missing": NUM_FRAMES - len(frames)} and NUM_FRAMES - len(frames) < 30
    assert f"{len(frames)} of {NUM_FRAMES} frames could be read" in caplog.text


@pytest.mark.parametrize(("left_out", "is_said"), [(0, False), (8, False), (30, True)])
@pytest.mark.parametrize("clip", [".mp4"], indirect=True)
def test_a_film_that_is_trimmed_a_little_is_whole(clip, left_out, is_said, caplog):
    """Programs trim without encoding: all frames stay in the file, and an edit list leaves out the first ones."""
    content = bytearray(clip.read_bytes())
    edit, media = content.index(b"elst") + 12, content.index(b"mdhd") + 16
    length, first = struct.unpack_from(">Ii", content, edit)
    [ticks_per_s] = struct.unpack_from(">I", content, media)
    struct.pack_into(">Ii", content, edit, length - left_out * 100, first + left_out * ticks_per_s // 10)
    clip.write_bytes(content)
    with caplog.at_level(logging.WARNING), open_source(clip) as source:
        frames = list(source)
    assert len(frames) == NUM_FRAMES - left_out and source.count == NUM_FRAMES
    assert bool(source.faults) == bool(caplog.text) == is_said


@pytest.mark.parametrize("share", [0.5, 0.85])
@pytest.mark.parametrize("clip", [".mkv", ".avi"], indirect=True)
def test_a_video_cut_off_is_read_as_far_as_it_goes(clip, share, caplog):
    content = clip.read_bytes()
    clip.write_bytes(content[: int(share * len(content))])
    with caplog.at_level(logging.WARNING), open_source(clip) as source:
        frames = list(source)
    assert abs(len(frames) / NUM_FRAMES - share) < 0.1 and source.count == NUM_FRAMES
    assert source.faults == {"frames missing": NUM_FRAMES - len(frames)}
    assert f"{len(frames)} of {NUM_FRAMES} frames could be read" in caplog.text


@pytest.mark.parametrize("clip", [".avi"], indirect=True)
def test_one_or_two_frames_fewer_than_announced_are_not_reported(clip):
    break_middle(clip, 0.02)
    with open_source(clip) as source:
        assert len(list(source)) == NUM_FRAMES - 2 and not source.faults


@pytest.mark.skipif(not REAL_CLIP.is_file(), reason="the clip lies beside some checkouts only")
def test_a_real_clip_goes_on_behind_a_broken_part(tmp_path, caplog):
    whole = tmp_path / "clip.mp4"
    shutil.copy(REAL_CLIP, whole)
    with open_source(whole) as source:
        truth = {frame.index: frame.image for frame in source}
    break_middle(whole, 0.1)
    with caplog.at_level(logging.WARNING), open_source(whole) as source:
        frames = list(source)
    assert len(truth) == 200 and 130 <= len(frames) < 200 and frames[-1].index == 199
    wrong = [frame.index for frame in frames if (frame.image != truth[frame.index]).any()]
    assert len(wrong) <= 1  # decoders make up the frame that the break cuts in two
    assert source.faults == {"break in the video": 1, "frames missing": 200 - len(frames)}
    assert "goes on at frame" in caplog.text
