"""Files of the folder in which an interrupted profile is kept: what this version did not write is refused as such."""

from pathlib import Path
from typing import TypeVar

from planner.errors import InputError
from planner.schema import Frozen, read_document

_Model = TypeVar("_Model", bound=Frozen)


def read_work_file(path: Path, model: type[_Model]) -> _Model:
    """Read a JSON file of the work folder; no version promises to read what another one wrote there.

    Raises:
        InputError: If it is not as this version writes it: what is wrong, and which folder to delete.
    """
    try:
        return read_document(path, model)
    except InputError as error:
        raise InputError(
            f"{str(error).rstrip('.')}: another version of the planner wrote it, or it is damaged; delete "
            f"{path.parent} to begin again, or write the profile to another file."
        ) from None
