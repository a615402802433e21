"""Run the benchmark of the solver; results of the same code are cached.

python -m benchmarks.solve [--sizes S,M,R,L,XL] [--plots] [--fresh] [--quick]
"""

import argparse
from pathlib import Path

from benchmarks.solve import compare
from benchmarks.solve.instances import ROOT, SIZES
from benchmarks.solve.jobs import WORK, JobResults
from planner.schema.base import write_text

PLOT = "solve-growth.png"


def main() -> None:
    """Run the comparison and write the page, or run the sweeps and draw the plots."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.solve", description=__doc__)
    parser.add_argument("--sizes", default="S,M,R,L,XL", help=f"some of {','.join(SIZES)}")
    parser.add_argument("--plots", action="store_true", help="run the sweeps instead, and draw them")
    parser.add_argument("--fresh", action="store_true", help="ignore earlier results")
    parser.add_argument(
        "--quick", action="store_true", help="a twentieth of the time, into the work folder: a short test"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    options = parser.parse_args()
    names = options.sizes.split(",")
    if unknown := [name for name in names if name not in SIZES]:
        parser.error(f"--sizes must be some of {','.join(SIZES)}, got {unknown[0]!r}")
    work: Path = WORK / "quick" if options.quick else WORK
    out: Path = work if options.quick else options.out
    store = JobResults(work / "results.json", options.fresh)
    speed_up = 20.0 if options.quick else 1.0
    if options.plots:
        # Imported here, since nothing else in the benchmark needs matplotlib.
        from benchmarks.solve import plots

        points = plots.sweep(store, speed_up)
        plots.write_points(points, work / "growth.json")
        plots.draw(points, out / PLOT)
        return
    comparisons = compare.compare(store, names, speed_up)
    plot = out / PLOT
    write_text(out / "solve.md", compare.page(comparisons, plot if plot.exists() else None))


if __name__ == "__main__":
    main()
