"""A folder of files for each class: which class each folder is."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from planner.arrays import Ints
from planner.errors import InputError, quoted
from planner.sample_files import FileKind, files_in
from planner.schema import AudioFolders, ImageFolders, ModelCard, did_you_mean

_NUMBER = re.compile("[0-9]+")
# Characters of a file's name, in every file system.
_MAX_NAME = 255


def labelled_files(
    root: Path, source: ImageFolders | AudioFolders, card: ModelCard, kind: FileKind
) -> tuple[tuple[Path, ...], Ints]:
    """Return the files (N,) of a kind in a part's folders of classes, and their labels (N,).

    Raises:
        InputError: If a folder cannot be read, is no class's or has folders in it, a file is of a format that is not
            read, or it is not certain which folder is which class.
    """
    train = Path(source.train)
    names = _folder_names(train, _subfolders(train), card, source.folders_by_number)
    files: list[Path] = []
    labels: list[int] = []
    for folder in _subfolders(root):
        if folder not in names:
            raise InputError(f"{root / folder}: must have a class's name{did_you_mean(folder, names) or '.'}")
        if inner := _subfolders(root / folder):
            raise InputError(
                f"{root / folder / inner[0]}: {kind.name} files must be in the class's folder itself, got a folder in "
                "it, whose files would not be read."
            )
        inside = files_in(root / folder, kind)
        files += inside
        labels += [names.index(folder)] * len(inside)
    return tuple(files), np.array(labels, dtype=np.int64)


def _subfolders(root: Path) -> list[str]:
    try:
        if not root.is_dir():
            got = "a file" if root.exists() else "nothing"
            raise InputError(f"{root}: must be a folder of class folders, got {got}.")
        return sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"{root}: cannot be read ({error.strerror}).") from None


def _folder_names(train: Path, folders: Sequence[str], card: ModelCard, by_number: bool) -> Sequence[str]:
    """Return the folder of each class: that of its name or, where classes have only numbers, in sorted order.

    Args:
        train: Folder of the training part.
        folders: Names of the folders in it, sorted as text.
        card: The model's.
        by_number: True if numbers in names are in their order, not in that of text.

    Raises:
        InputError: If classes have only numbers and there is not a folder for each, or the order of the numbers in
            folders' names is not that of text, by which other libraries label, and the card does not say which.
    """
    if not card.classes_are_numbered:
        return card.classes
    # Of folders called as the classes, some may be missing.
    called = card.classes if set(folders) <= set(card.classes) else folders
    if len(called) != len(card.classes):
        raise InputError(f"{train}: must have a folder for each of {len(card.classes)} classes, got {len(folders)}.")
    numbered, by_text = sorted(called, key=_by_number), sorted(called)
    if not by_number and numbered != by_text:
        first = ", ".join(f'"{name}"' for name in by_text[:3])
        raise InputError(
            f"{train}: folders {quoted(numbered[0])} to {quoted(numbered[-1])} have two orders: if the model's outputs "
            "are in that of numbers, say `folders_by_number: true` in the card's `data`; if in that of text, as "
            f"torchvision's ImageFolder labels them, list them so as the card's `classes`: [{first}, ...]."
        )
    return numbered


def _by_number(name: str) -> tuple[str, str]:
    """Return the key that sorts names as text, but numbers in them by value: "class 9" is before "class 10"."""
    return _NUMBER.sub(lambda number: number[0].zfill(_MAX_NAME), name), name
