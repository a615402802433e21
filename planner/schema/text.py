"""Text in files: names, paths, hashes, and descriptions for people.

A name is shown in tables and matched with others, so that it must be visible and not look like another one of its file.
"""

import unicodedata
from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, Field

from planner.errors import quoted
from planner.units import visible

MAX_NAME_LENGTH, MAX_PATH_LENGTH, _MAX_PART_BYTES = 200, 1000, 255
# Joiners are invisible, but letters of some scripts and many emoji fall apart without them.
_JOINERS = "\u200c\u200d"
# Letters that no font tells from a Latin one, and the Latin ones (Unicode Technical Standard 39, confusables).
_CYRILLIC = "АВЕЅІЈКМНОРСТУХаеѕіјорсухһԁԛԝ", "ABESIJKMHOPCTYXaesijopcyxhdqw"
_GREEK = "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧο", "ABEZHIKMNOPTYXo"
_AS_LATIN = str.maketrans(dict(zip(_CYRILLIC[0] + _GREEK[0], _CYRILLIC[1] + _GREEK[1], strict=True)))


def _as_name(value: str) -> str:
    if visible(value) != value:
        raise ValueError(f"must have no invisible or control character, got {quoted(value)}")
    if not look_of(value):
        raise ValueError(f"must have a visible character, got {quoted(value)}")
    return value


def _as_path(value: str) -> str:
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in value):
        raise ValueError(f"must be a path without control characters, got {quoted(value)}")
    if any(len(part.encode()) > _MAX_PART_BYTES for part in value.split("/")):
        raise ValueError(f"must be a path whose parts have at most {_MAX_PART_BYTES} bytes, got {quoted(value)}")
    return value


Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME_LENGTH), AfterValidator(_as_name)]
FilePath = Annotated[str, Field(min_length=1, max_length=MAX_PATH_LENGTH), AfterValidator(_as_path)]
# A file or folder of the manifest's own folder.
FileName = Annotated[str, Field(max_length=100, pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# For people.
Text = Annotated[str, Field(max_length=100_000)]


def look_of(name: str) -> str:
    """Return what is seen of a name: two spellings of an accented letter, and blanks of any width, are the same."""
    plain = unicodedata.normalize("NFKC", name)
    return " ".join("".join(letter for letter in plain if letter not in _JOINERS).split())


def check_names_differ(names: Iterable[str], where: str, across_scripts: bool = False) -> None:
    """Check that no name is given twice, and none looks like another.

    Args:
        names: The names.
        where: Place of the names, for messages.
        across_scripts: Whether a Cyrillic or Greek letter is the Latin one that it looks like.

    Raises:
        ValueError: If one is.
    """
    known: dict[str, str] = {}
    for name in names:
        look = look_of(name).translate(_AS_LATIN) if across_scripts else look_of(name)
        twin = known.get(look)
        if twin == name:
            raise ValueError(f"{where}: names must differ, {quoted(name)} is given twice")
        if twin is not None:
            shown, other = quoted(name, ascii_only=True), quoted(twin, ascii_only=True)
            raise ValueError(f"{where}: names must differ in what is seen of them, got {other} and {shown}")
        known[look] = name
