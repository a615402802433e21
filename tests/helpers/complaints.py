"""Complaints about files: the pencil fleet and profile after a change."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from planner.errors import InputError
from planner.schema import Fleet, Profile, read_document
from tests.helpers.common import Json
from tests.helpers.pencil import fleet_data, profile_data

FLEET, PROFILE = Path("devices.json"), Path("profile.json")


def complaint(text: str | bytes, path: Path = FLEET) -> str:
    """Return the message about a file with this content: one sentence that starts with its name."""
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(InputError, match=rf"\A{path.name}: [^\n]+[.?)]\Z") as caught:
        read_document(path, Fleet if path == FLEET else Profile)
    return str(caught.value).removeprefix(f"{path.name}: ")


def fleet_complaint(change: Callable[[Json], object]) -> str:
    """Return the message about the pencil fleet after a change."""
    data = fleet_data()
    change(data)
    return complaint(json.dumps(data))


def device_complaint(**changes: Any) -> str:
    """Return the message about the fleet after a change to its second device."""
    return fleet_complaint(lambda data: data["devices"][1].update(changes))


def profile_complaint(change: Callable[[Json], object]) -> str:
    """Return the message about the pencil profile after a change."""
    data = profile_data()
    change(data)
    return complaint(json.dumps(data), PROFILE)
