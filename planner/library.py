"""Readers of fleets, plans and profiles: the user's own files, or the profiles and models that come along.

`profiles/` and `models/` lie beside the package in the repository and inside it in a wheel;
`folder` is the one function that knows both places.
"""

from functools import lru_cache
from pathlib import Path
from typing import Literal

from planner.errors import InputError, setting
from planner.schema import DeviceKind, Fleet, Plan, Profile, did_you_mean, read_document

DEFAULT_PROFILE = "digits-vit"


def folder(name: Literal["profiles", "models"]) -> Path:
    """Return the folder of the shipped data of this name."""
    package = Path(__file__).parent
    inside = package / name
    return inside if inside.is_dir() else package.parent / name


def load_fleet(path: str | Path) -> Fleet:
    """Read a devices.json."""
    return read_document(Path(path), Fleet)


def read_plan(path: str | Path) -> Plan:
    """Read a plan.json, without checking it against its profile and fleet."""
    return read_document(Path(path), Plan)


def load_profile(name: str | Path) -> Profile:
    """Read a profile: a path to a JSON file, or the name of a shipped one."""
    name = str(name)
    if name.endswith(".json") or "/" in name:
        return read_document(Path(name), Profile)
    known = sorted(path.stem for path in folder("profiles").glob("*.json"))
    if name not in known:
        raise InputError(
            f"{setting('profile')} must be a .json file or one of {', '.join(known)}, "
            f"got {name!r}{did_you_mean(name, known) or '.'}"
        )
    return read_document(folder("profiles") / f"{name}.json", Profile)


@lru_cache
def load_kinds() -> dict[str, DeviceKind]:
    """Read the card of every shipped device kind."""
    paths = sorted((folder("profiles") / "devices").glob("*.json"))
    return {card.kind: card for card in (read_document(path, DeviceKind) for path in paths)}
