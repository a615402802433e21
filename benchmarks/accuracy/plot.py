"""Plot of fused accuracy against latency, one line for each method."""

from pathlib import Path

from benchmarks.accuracy.page import curve
from benchmarks.accuracy.plans import ROWS
from benchmarks.accuracy.results import Study, half_range
from benchmarks.accuracy.settings import MAIN_FLEET, SWEEP
from planner.schema.base import write_bytes

# Okabe and Ito's colours, which the colour-blind can tell apart; markers differ too.
_STYLES = {"pruned": ("^:", "#000000"), "devit": ("s--", "#D55E00"), "ed-vit": ("D-.", "#009E73")}
_STYLES |= {"ours": ("o-", "#0072B2")}


def file_name(subject: str) -> str:
    """Return the file name of a subject's plot."""
    return f"accuracy-{subject}.png"


def draw(study: Study, path: Path) -> None:
    """Draw the sweep of one subject as far as results exist, with the spread over seeds as error bars."""
    # Imported here, since nothing else in the benchmark needs matplotlib.
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for row in ROWS:
        points = curve(study, row)
        bars = []
        for limit in SWEEP:
            accuracies = [o.fused for o in study.outcomes(row, MAIN_FLEET, limit)]
            if accuracies:
                bars.append(100 * (half_range(accuracies) or 0.0))
        style, colour = _STYLES[row]
        values = [100 * y for _, y in points]
        axes.errorbar([x for x, _ in points], values, yerr=bars, fmt=style, color=colour, label=row, capsize=3)
    axes.axhline(100 * study.whole.accuracy, color="#666666", linewidth=1, linestyle=(0, (5, 3)), label="whole")
    axes.axvline(study.whole.measured_us, color="#666666", linewidth=0.8, linestyle=(0, (1, 2)))
    axes.set_xlabel("measured latency of the fleet [us]; dotted: the whole model's")
    axes.set_ylabel("fused accuracy [%]")
    axes.set_title(f"{study.subject}, {MAIN_FLEET}", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}")
    figure.savefig(scratch, dpi=110, format="png")
    plt.close(figure)
    write_bytes(path, scratch.read_bytes())
    scratch.unlink()
