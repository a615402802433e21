"""Draw the README's plot, docs/timeline.png: `make docs`."""

import io
from pathlib import Path

import planner
from planner.report.figures import print_timeline
from planner.schema.base import write_bytes

ROOT = Path(__file__).parent.parent
TIMELINE = ROOT / "docs" / "timeline.png"


def main() -> None:
    """Plan the demo fleet and draw the timeline of one image."""
    plan = planner.solve("digits-vit", planner.load_fleet(ROOT / "examples" / "devices.json"))
    png = io.BytesIO()
    print_timeline(plan).savefig(png, format="png", dpi=130)
    write_bytes(TIMELINE, png.getvalue())


if __name__ == "__main__":
    main()
