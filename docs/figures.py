"""Draw the plots of one image over a fleet, docs/timeline.png and docs/photographs.png: `make docs`."""

import io
from pathlib import Path

import planner
from planner.report.figures import print_timeline
from planner.schema.base import write_bytes

ROOT = Path(__file__).parent.parent
DOCS, EXAMPLES = ROOT / "docs", ROOT / "examples"


def main() -> None:
    """Plan two fleets and draw the timeline of one image over each."""
    draw("digits-vit", EXAMPLES / "devices.json", planner.Goal(), DOCS / "timeline.png")
    goal = planner.Goal(objective="accuracy", max_latency_ms=80)
    draw("dinov2-small-caltech101", EXAMPLES / "photos" / "four-pis.json", goal, DOCS / "photographs.png")


def draw(profile: str, fleet: Path, goal: planner.Goal, picture: Path) -> None:
    """Plan a fleet and draw the timeline of one image."""
    png = io.BytesIO()
    print_timeline(planner.solve(profile, planner.load_fleet(fleet), goal)).savefig(png, format="png", dpi=130)
    write_bytes(picture, png.getvalue())


if __name__ == "__main__":
    main()
