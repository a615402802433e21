"""Files of images and of sounds in a folder, told by the endings of their names."""

from dataclasses import dataclass
from pathlib import Path

from planner.errors import InputError


@dataclass(frozen=True)
class FileKind:
    """Kind of files that samples come from.

    Attributes:
        name: What one of them is.
        suffixes: Endings of the names of files that are read, in lower case.
        unread: Endings of files that hold such samples, too, but are not read.
    """

    name: str
    suffixes: frozenset[str]
    unread: frozenset[str]


def _endings(names: str) -> frozenset[str]:
    return frozenset(f".{name}" for name in names.split())


IMAGE_FILES = FileKind(
    "image",
    _endings("bmp dib gif jfif jif jpe jpeg jpg pbm pgm png pnm ppm tif tiff webp"),
    _endings("arw avif cr2 cr3 dcm dng exr heic heif j2k jls jp2 jxl nef pcx psd tga xbm xpm"),
)
SOUND_FILES = FileKind(
    "sound", _endings("wav"), _endings("aac aif aiff amr au caf flac m4a mp3 oga ogg opus wave wma wv")
)


def files_in(folder: Path, kind: FileKind) -> list[Path]:
    """Return a folder's files of a kind, sorted by name; hidden files and other kinds' are passed over.

    Raises:
        InputError: If the folder cannot be read, or a file holds a sample in a format that is not read: it would be
            missing without a word.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror}).") from None
    for path in paths:
        if path.suffix.lower() in kind.unread:
            raise InputError(
                f"{path}: {kind.name} files must end in {', '.join(sorted(kind.suffixes))}, got {path.suffix}: "
                "convert it, or take it out of the folder."
            )
    return [path for path in paths if path.suffix.lower() in kind.suffixes]
