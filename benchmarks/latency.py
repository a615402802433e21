"""Latency model compared with measured sub-models that it was not fitted to, in ONNX Runtime on this machine.

    python benchmarks/latency.py [--seconds 240] [--out docs/latency.md]

For each model, the probes of `planner probe make` and 15 random sub-models (width, heads and channels of every block
drawn uniformly) are timed in the same rounds by the script that devices run. The latency model is fitted to the probes
alone and predicts the sub-models: once with the median of each network's rounds, once with the shortest, which other
load on the machine disturbs less. `planner probe add` fits the shortest, raised to the medians' level. Networks are
kept under build/latency.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import torch

from planner.arrays import Floats
from planner.network.checkpoint import load_card, whole_shape
from planner.network.vit import Shape
from planner.network.widths import embed_widths
from planner.profiler.device.latency_fit import LatencyFit, TimedNetwork, fit_latency
from planner.profiler.device.probe_design import CHANNEL_MULTIPLE, NUM_NETWORKS, design_probes
from planner.profiler.device.probe_folder import MANIFEST, PRECISIONS, SCRIPT, write_networks, write_script
from planner.schema import Precision, ProbeResult, read_document
from planner.schema.base import write_text

ROOT = Path(__file__).parent.parent
WORK = ROOT / "build" / "latency"
NUM_SUB_MODELS = 15
THREADS = (1, 2)

WHOLES = {
    "digits-vit": whole_shape(load_card("digits-vit")),
    "ViT-Tiny at 224": Shape(224, 16, 3, 1000, 192, 64, (3,) * 12, (768,) * 12),
}


@dataclass(frozen=True)
class ErrorRow:
    """Prediction errors of one precision and thread count, as shares of the measured time."""

    precision: Precision
    threads: int
    round: str
    held_out_mape: float
    held_out_p95: float
    errors: Floats  # (sub-models,), predicted / measured - 1
    spread: float

    def __str__(self) -> str:
        size = np.abs(self.errors)
        return (
            f"| {self.precision} | {self.threads} | {self.round} | {self.held_out_mape:.1%} | {self.held_out_p95:.1%} "
            f"| {size.mean():.1%} | {size.max():.1%} | {self.errors.mean():+.1%} | {self.spread:.1%} |"
        )


def main() -> None:
    """Measure all models and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=240, help="of measurement for each model")
    parser.add_argument("--models", default=",".join(WHOLES))
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "latency.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    sections = []
    for name in options.models.split(","):
        result = measure(name, WHOLES[name], options.seconds)
        sections += section(name, result)
    lines = [
        "# Latency predicted and measured",
        "",
        f"{result.device.cpu} ({result.device.machine}), {result.device.cores} cores, onnxruntime "
        f"{result.device.onnxruntime}; load average {load:.1f} before the run. {NUM_NETWORKS} probes are fitted, "
        f"{NUM_SUB_MODELS} random sub-models of whole depth are predicted. Held-out: each probe with a head predicted "
        "from the other probes. Round: which one of its rounds is taken for a network's time; where nothing disturbs "
        "the machine, both say the same. `planner probe add` fits the shortest, raised to the medians' level. "
        "Spread: how much the rounds of one network differ, the median of all networks.",
        *sections,
    ]
    write_text(options.out, "\n".join(lines) + "\n")
    print("\n".join(lines))


def measure(name: str, whole: Shape, seconds: float) -> ProbeResult:
    """Time the probes and random sub-models of a model, in the same rounds."""
    folder = WORK / name.replace(" ", "-")
    if not (folder / MANIFEST).exists():
        shapes = [*design_probes(whole, embed_widths(whole), 0), *random_sub_models(whole)]
        write_networks(name, whole, shapes, folder, PRECISIONS, 0, lambda done, n: print(name, done, n, flush=True))
    write_script(folder)
    out, threads = folder / "latency.json", ",".join(map(str, THREADS))
    command = [sys.executable, str(folder / SCRIPT), "--threads", threads, "--seconds", str(seconds), "--out", str(out)]
    subprocess.run(command, check=True)
    return read_document(out, ProbeResult)


def random_sub_models(whole: Shape) -> list[Shape]:
    """Return random sub-models of full depth; the embed widths take turns."""
    rng = np.random.default_rng(1)
    widths = embed_widths(whole)
    max_heads, max_groups = whole.num_heads[0], whole.hidden_dim[0] // CHANNEL_MULTIPLE
    shapes = []
    for i in range(NUM_SUB_MODELS):
        heads = rng.integers(0, max_heads, whole.depth, endpoint=True)
        channels = CHANNEL_MULTIPLE * rng.integers(0, max_groups, whole.depth, endpoint=True)
        embed_dim = widths[i % len(widths)]
        shapes.append(
            replace(whole, embed_dim=embed_dim, num_heads=tuple(heads.tolist()), hidden_dim=tuple(channels.tolist()))
        )
    return shapes


def section(name: str, result: ProbeResult) -> list[str]:
    """Return the lines of one model's table."""
    rows = [
        row(result, precision, threads, aggregate)
        for precision in PRECISIONS
        for threads in THREADS
        for aggregate in (median, min)
    ]
    head = "| precision | threads | round | held-out: mean | p95 | sub-models: mean | largest | bias | spread |"
    return ["", f"## {name}", "", head, "|---|---|---|---|---|---|---|---|---|", *map(str, rows)]


def row(
    result: ProbeResult, precision: Precision, threads: int, aggregate: Callable[[Sequence[float]], float]
) -> ErrorRow:
    """Fit the latency model to the probes, and compare its predictions with the sub-models."""
    timings = {t.network: t for t in result.timings if (t.precision, t.threads) == (precision, threads)}
    timed = [
        TimedNetwork(n.embed_dim, n.num_heads, n.hidden_dim, aggregate(timings[n.name].rounds_us))
        for n in result.manifest.networks
    ]
    fitted = fit_latency(timed[:NUM_NETWORKS])
    return ErrorRow(
        precision=precision,
        threads=threads,
        round="median" if aggregate is median else "shortest",
        held_out_mape=fitted.mape,
        held_out_p95=fitted.p95_error,
        errors=errors(fitted, timed[NUM_NETWORKS:]),
        spread=float(np.median([t.spread for t in timings.values()])),
    )


def errors(fitted: LatencyFit, sub_models: Sequence[TimedNetwork]) -> Floats:
    """Return predicted / measured - 1 of each sub-model."""
    return np.array([fitted.predict_us(t.embed_dim, t.num_heads, t.hidden_dim) / t.time_us - 1 for t in sub_models])


if __name__ == "__main__":
    main()
