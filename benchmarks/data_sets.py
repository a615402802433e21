"""Where the data sets are that do not come along: in $PLANNER_DATA, or in ../shared/data beside the project."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[1]


def data_folder() -> Path | None:
    """Return the folder, if it is there."""
    named = os.environ.get("PLANNER_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    return folder.resolve() if folder.is_dir() else None
