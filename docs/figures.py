"""Writes the README's picture, docs/timeline.png: `make docs`."""

import io
from pathlib import Path

import planner
from planner.report.figures import print_timeline
from planner.schema.base import write_bytes

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "timeline.png"


def main() -> None:
    """Plan the demo fleet and draw one image over it."""
    plan = planner.solve("digits-vit", planner.load_fleet(ROOT / "examples" / "devices.json"))
    drawn = io.BytesIO()
    print_timeline(plan).savefig(drawn, format="png", dpi=130)
    write_bytes(PICTURE, drawn.getvalue())


if __name__ == "__main__":
    main()
