"""Folder of the data sets that are not part of the repository: $PLANNER_DATA, or ../shared/data beside it."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[1]


def data_folder() -> Path | None:
    """Return the folder if it exists."""
    named = os.environ.get("PLANNER_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    return folder.resolve() if folder.is_dir() else None
