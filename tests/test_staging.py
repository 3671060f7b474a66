"""All or nothing: what becomes of a folder when a conversion ends well, fails, or is interrupted."""

from __future__ import annotations

import os

import pytest

from converters.staging import staging


def files(folder):
    return sorted(path.name for path in folder.rglob("*"))


def test_a_move_that_fails_is_undone(tmp_path, monkeypatch):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "inside").write_text("old b")
    (tmp_path / "a").write_text("old a")
    replace = os.replace

    def replace_until_c(source, target):
        if target == tmp_path / "c":
            raise OSError("no space")
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_until_c)
    with pytest.raises(OSError, match="no space"), staging(tmp_path) as folder:
        for name in "abc":
            (folder / name).write_text(f"new {name}")
    assert files(tmp_path) == ["a", "b", "inside"]
    assert (tmp_path / "a").read_text() == "old a" and (tmp_path / "b" / "inside").read_text() == "old b"


@pytest.mark.parametrize("moment", [1, 2, 3, 4])
def test_ctrl_c_in_the_last_moment_keeps_what_was_there(tmp_path, monkeypatch, moment):
    for name in "ab":
        (tmp_path / name).write_text(f"old {name}")
    replace, moves = os.replace, []

    def interrupted(source, target):
        replace(source, target)
        moves.append(target)
        if len(moves) == moment:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt), staging(tmp_path) as folder:
        for name in "ab":
            (folder / name).write_text(f"new {name}")
    assert files(tmp_path) == ["a", "b"]
    assert [(tmp_path / name).read_text() for name in "ab"] == ["old a", "old b"]


def test_folders_made_for_nothing_are_removed(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError), staging(tmp_path / "mine" / "a" / "b"):
        raise ValueError
    assert files(tmp_path) == ["mine"]


def test_staging_replaces_folders(tmp_path):
    for content in ("old", "new"):
        with staging(tmp_path) as folder:
            (folder / "pose.mlpackage").mkdir()
            (folder / "pose.mlpackage" / content).write_text(content)
    assert files(tmp_path) == ["new", "pose.mlpackage"]
