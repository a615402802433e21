"""Temporary folders of rehearsals: what is removed, and what is left alone."""

import tempfile
from pathlib import Path

import pytest

from planner.runtime.rehearsal.work_folder import work_folder


def test_only_a_folder_of_a_rehearsal_that_is_gone_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither one that has just been made, nor a link, nor a file."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "locked").touch()
    (tmp_path / "rehearsal-link").symlink_to(tmp_path / "mine")
    (tmp_path / "rehearsal-file").touch()
    (tmp_path / "rehearsal-new").mkdir()
    (tmp_path / "rehearsal-left").mkdir()
    (tmp_path / "rehearsal-left" / "locked").touch()
    with work_folder():
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "mine",
        "rehearsal-file",
        "rehearsal-link",
        "rehearsal-new",
    ]
    assert (tmp_path / "mine" / "locked").exists()
