"""Files are written whole or not at all."""

import os
from pathlib import Path
from typing import NoReturn

import pytest

from planner.errors import InputError
from planner.schema.base import write_text


def names_in(folder: Path) -> list[str]:
    """Return the names in a folder, hidden files included."""
    return sorted(path.name for path in folder.iterdir())


def test_write_text_writes_whole_files() -> None:
    """The file and its folder are made with usual permissions, and no temporary file is left."""
    path = Path("new/folder/plan.json")
    write_text(path, "Grüße\n")
    assert path.read_bytes() == "Grüße\n".encode()
    assert names_in(path.parent) == ["plan.json"]
    Path("plain").touch()
    assert path.stat().st_mode == Path("plain").stat().st_mode


@pytest.mark.parametrize(("module", "step"), [(os, "fsync"), (Path, "replace")])
def test_write_text_leaves_the_old_file_when_writing_fails(
    module: object, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the disk is full, the old file stays as it was, and no other is left."""

    def full(*args: object) -> NoReturn:
        raise OSError(28, "No space left on device")

    Path("plan.json").write_text("old")
    monkeypatch.setattr(module, step, full)
    with pytest.raises(
        InputError, match=r"\Aplan\.json: cannot be written \(No space left on device\): needs 3 bytes\.\Z"
    ):
        write_text(Path("plan.json"), "new")
    assert Path("plan.json").read_text() == "old"
    assert names_in(Path()) == ["plan.json"]


def test_write_text_leaves_the_old_file_when_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C is not swallowed, and leaves the old file alone."""

    def interrupt(*args: object) -> NoReturn:
        raise KeyboardInterrupt

    Path("plan.json").write_text("old")
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_text(Path("plan.json"), "new")
    assert Path("plan.json").read_text() == "old"
    assert names_in(Path()) == ["plan.json"]


@pytest.mark.parametrize("place", ["file/plan.json", "folder"])
def test_write_text_where_nothing_can_be_written(place: str) -> None:
    """A path through a file, and a folder as the file, are refused."""
    Path("file").write_text("a file")
    Path("folder").mkdir()
    with pytest.raises(InputError, match=rf"\A{place}: cannot be written \(.+\)\.\Z"):
        write_text(Path(place), "new")
    assert names_in(Path()) == ["file", "folder"]
