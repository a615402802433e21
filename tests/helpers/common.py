"""Names for tests of every room: the repository, the demo's fleet, and JSON data."""

from pathlib import Path
from typing import Any

Json = dict[str, Any]

ROOT = Path(__file__).parents[2]
DEVICES = ROOT / "examples" / "devices.json"

PATIENCE_S = 600.0
"""Wait for what a busy machine does late [s]: it ends a test that hangs, and decides nothing."""
