"""Page of the benchmark, written from results alone."""

import math
import platform
from collections.abc import Mapping, Sequence

import numpy
import onnxruntime
import torch

from benchmarks.rivals.rows import Row
from benchmarks.rivals.settings import PRUNED_FROM, STEPS, Effort
from benchmarks.rivals.side_by_side import TimedShape
from planner.profiler.device.probe_script import cpu_name, num_cores

WHOLE, PRUNED, SPLIT = "ViT, whole", "ViT, pruned for one board", "ViT, split over four boards"
SMALL_CNN, SPLIT_CNN, SPIKING_CNN = "CNN, not split", "CNN, split by class", "spiking CNN, split by class"
_NONE = "-"
_HEAD = (
    "| row | accuracy | below the whole ViT [points] | worst class | a board lost | latency predicted [us] | "
    "measured [us] | of the whole ViT's | params [thousands]: largest, all | MACs [M]: largest, all | "
    "images from scratch | images of retraining | seed |\n|" + "---|" * 13
)


def page(effort: Effort, rows: Sequence[Row], times: Mapping[TimedShape, float], num_images: int) -> str:
    """Return the page as markdown.

    Args:
        effort: Settings of the run.
        rows: All rows, the whole ViT's first.
        times: Time of each network and join [us].
        num_images: Number of test images.
    """
    table = [_HEAD, *(_line(row, rows[0], times) for row in rows)]
    return (
        "\n\n".join([_introduction(effort, num_images), "\n".join(table), *_findings(rows, times, num_images)]) + "\n"
    )


def _introduction(effort: Effort, num_images: int) -> str:
    budget = effort.retraining
    per_class = "all" if budget.per_class is None else f"{budget.per_class} of each class's"
    return f"""# Why not just a small CNN?

A ViT that is split by class over four equal boards, beside convolutional networks that take no longer than its
sub-models: one that is not split, one that is split by class in the style of NNFacet and EC-SNN, and that one of
spiking neurons. {effort.subject}, {num_images:,} test images, those that calibration did not take; nothing was chosen
by them.
`make bench-rivals` runs it again and goes on where it was stopped.

{cpu_name()} ({platform.machine()}), {num_cores()} cores; Python {platform.python_version()}, torch \
{torch.__version__}, onnxruntime {onnxruntime.__version__}, numpy {numpy.__version__}. Latencies are of one thread and \
one image in ONNX Runtime, of all networks in the same rounds: each one's shortest run of all rounds, which other work \
on the machine disturbs least, by the settings of the planner's runtime or with all of ONNX Runtime's optimisations, \
whichever is faster. A row's is that of its slowest network and \
of the head or fusion that makes an answer of features; links cost nothing.

- *ViT, pruned* and *split*: the plans of the highest predicted accuracy within a third of the whole model's predicted
  latency, on one board and on four, by the default recipe, which learns from the whole ViT: {budget.epochs} times
  {per_class} training images, a tenth of them held back to decide when to stop.
- *CNN, not split*: VGG-like, five 3x3 convolutions with batch norm and two poolings; the widest whose features take no
  longer than the split ViT's slowest sub-model. Trained on labels alone, for {effort.epochs} epochs.
- *CNN, split*: a network {PRUNED_FROM} times as wide is trained for {effort.wide_epochs} epochs; each board's is what
  is left when the filters are pruned that matter least to its own classes (Taylor expansion, arXiv 1611.06440), as wide
  as the CNN that is not split. It is retrained on its own classes and as many images of others, for as many images as
  the ViT's sub-models, and an MLP like theirs joins the features. Class subsets are equal and drawn at random. The
  criterion and the sizes are ours; neither paper's code was run.
- *Spiking*: the same with leaky neurons that fire (snnTorch, arctangent as the surrogate gradient), {STEPS} time
  steps, as wide as its steps allow: its latency is {STEPS} times a pass of the network in ONNX Runtime, with a ReLU in
  place of the neurons, whose own time is not counted. The MACs are of all steps. Hardware made for spikes would skip
  the zeros; this processor does not.

Sizes are of the networks, each with its own head, without the fusion. *A board lost*: accuracy without the board that
is missed most; a dash where there is only one, and then no answer is left. Images are all that a network
learned from, all epochs together; *from scratch* is of the network that others are cut from, or of the row's
own. Of the ViT's sub-models, and of the CNN's, the largest number is shown."""


def _line(row: Row, whole: Row, times: Mapping[TimedShape, float]) -> str:
    measured = row.measured_us(times)
    params, macs = [s.params / 1e3 for s in row.sizes], [s.macs / 1e6 for s in row.sizes]
    costs = [
        _NONE if row.predicted_us is None else f"{row.predicted_us}",
        f"{measured:.0f}",
        f"{measured / whole.measured_us(times):.2f}",
        f"{max(params):.0f}, {sum(params):.0f}",
        f"{max(macs):.2f}, {sum(macs):.2f}",
    ]
    cells = [row.name, *_accuracies(row, whole), *costs, *_images(row), f"{row.seed}"]
    return "| " + " | ".join(cells) + " |"


def _accuracies(row: Row, whole: Row) -> list[str]:
    outcome = row.outcome
    if outcome is None or whole.outcome is None:
        return ["not run yet", _NONE, _NONE, _NONE]
    below = 100 * (whole.outcome.fused - outcome.fused)
    lost = _NONE if outcome.lost is None else f"{outcome.lost:.1%}"
    return [f"{outcome.fused:.2%}", f"{below:+.2f}", f"{outcome.worst:.1%}", lost]


def _images(row: Row) -> list[str]:
    retraining = row.outcome.images.values() if row.outcome else ()
    scratch = _NONE if row.scratch_images is None else f"{row.scratch_images:,}"
    return [scratch, f"{max(retraining):,}" if retraining else _NONE]


def _findings(rows: Sequence[Row], times: Mapping[TimedShape, float], num_images: int) -> list[str]:
    """Return what the table says, in sentences, of the rows that were run."""
    of = {row.name: row for row in rows}
    split, small = of[SPLIT], of[SMALL_CNN]
    pairs = ((SMALL_CNN, WHOLE), (SPLIT_CNN, SMALL_CNN), (SPLIT_CNN, SPLIT), (SPIKING_CNN, SPLIT_CNN), (SPLIT, PRUNED))
    lines = [sentence for one, other in pairs if (sentence := _beside(of[one], of[other], num_images))]
    if first := _beside(small, split, num_images):
        share = small.measured_us(times) / split.measured_us(times)
        first += (
            f" It takes {share:.2f} of its latency, on one board in place of {len(split.networks)}, and learned from "
            f"{small.scratch_images:,} images; the ViT from {split.scratch_images:,}, and its sub-models from more."
        )
        lines = [first, *lines]
    return ["## What comes of it", "\n".join(f"- {line}" for line in lines), _answer(split, small, num_images)]


def _beside(row: Row, other: Row, num_images: int) -> str:
    if row.outcome is None or other.outcome is None:
        return ""
    points = 100 * (row.outcome.fused - other.outcome.fused)
    side = "above" if points > 0 else "below"
    sure = "" if abs(points) > chance_points(other.outcome.fused, num_images) else ", which may be chance"
    return f"*{row.name}* is {abs(points):.2f} points {side} *{other.name}*{sure}."


def chance_points(accuracy: float, num_images: int) -> float:
    """Return the largest difference of two accuracies that chance makes in 95 of 100 draws of test images [points].

    As if each were measured on images of its own: on the same ones it is less. What a seed changes is not in it.
    """
    return 196 * math.sqrt(2 * accuracy * (1 - accuracy) / num_images)


def _answer(split: Row, small: Row, num_images: int) -> str:
    if split.outcome is None or small.outcome is None:
        return "No answer yet."
    points = 100 * (small.outcome.fused - split.outcome.fused)
    margin = chance_points(split.outcome.fused, num_images)
    if points < -margin:
        answer = (
            "So here: the split ViT is more accurate than a CNN that one board runs alone within the same latency, at "
            f"the price of {len(split.networks)} boards."
        )
    else:
        relation = "more accurate than" if points > margin else "as accurate, as far as can be told, as"
        answer = (
            f"So here: yes, just a small CNN. It is {relation} the split ViT within the same latency, and needs one "
            "board. What the split ViT still gives is an answer when a board is lost."
        )
    return (
        f"{answer} Differences of up to {margin:.2f} points may be chance, of {num_images:,} test images alone, and "
        "there is one seed. Not compared: a ViT that was pretrained on far more images than its task has, of which a "
        "CNN from scratch knows nothing; and other processors, on which convolutions may be slower or faster."
    )
