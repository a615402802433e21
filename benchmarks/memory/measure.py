"""Random sub-models of known models: predicted memory, and peak memory of a process that runs them."""

import json
import random
import statistics
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from planner.network import counts
from planner.network.export import export_onnx, quantise_int8
from planner.network.vit import Shape, VisionTransformer
from planner.profiler import memory

ROOT = Path(__file__).parent.parent.parent
PROCESSES = 3
WIDTHS = (1.0, 3 / 4, 1 / 2, 1 / 3, 1 / 6)

DIGITS = Shape(8, 2, 1, 10, 64, 16, (4,) * 4, (256,) * 4)
TINY = Shape(224, 16, 3, 1000, 192, 64, (3,) * 12, (768,) * 12)
SMALL = Shape(224, 16, 3, 1000, 384, 64, (6,) * 12, (1536,) * 12)
# One head and eight channels in each block: all operators, but only tiny tensors.
TRIVIAL = Shape(8, 2, 1, 2, 8, 8, (1,), (8,))


@dataclass(frozen=True)
class MemoryRow:
    """Memory of one sub-model in bytes, beyond the runtime's overhead."""

    model: str
    shape: Shape
    weights: int
    predicted: int
    measured: float
    spread: int

    @property
    def ratio(self) -> float:
        """Predicted over measured; at least one page counts as measured, to avoid dividing by zero."""
        return self.predicted / max(self.measured, 4096)


def random_sub_models(whole: Shape, count: int, seed: int) -> list[Shape]:
    """Return random sub-models: the widths take turns, every third has equal blocks, and each has at least one head."""
    rng = random.Random(seed)
    H, groups, depth = whole.num_heads[0], whole.hidden_dim[0] // 8, whole.depth
    shapes: list[Shape] = []
    while len(shapes) < count:
        units = [(rng.randint(0, H), 8 * rng.randint(0, groups)) for _ in range(depth)]
        heads, channels = zip(*(units[:1] * depth if len(shapes) % 3 == 2 else units), strict=True)
        if any(heads):
            width = max(8, int(whole.embed_dim * WIDTHS[len(shapes) % len(WIDTHS)]) // 8 * 8)
            shapes.append(replace(whole, embed_dim=width, num_heads=heads, hidden_dim=channels))
    return shapes


def overhead_bytes(folder: Path, depth: int) -> int:
    """Return the runtime's own memory: of a process that runs a trivial network of this depth with our settings.

    The maximum of several processes, as one would take it to state a device's overhead.
    """
    trivial = replace(TRIVIAL, num_heads=(1,) * depth, hidden_dim=(8,) * depth)
    return max(peaks(write(trivial, folder / "trivial.onnx"), "ours", 3 * PROCESSES))


def measure_row(name: str, whole: Shape, shape: Shape, overhead: int, folder: Path, int8: bool = False) -> MemoryRow:
    """Predict and measure the memory of one sub-model."""
    path = write(shape, folder / "model.onnx")
    if int8:
        quantise_int8(path, folder / "int8.onnx")
        path = folder / "int8.onnx"
    weights = params(shape) * (1 if int8 else 4)
    coefficients = memory.activation_memory(replace(whole, embed_dim=shape.embed_dim))
    measured = peaks(path, "ours", PROCESSES)
    return MemoryRow(
        model=name,
        shape=shape,
        weights=weights,
        predicted=weights + coefficients.peak(shape.num_heads, shape.hidden_dim),
        measured=statistics.median(measured) - overhead,
        spread=max(measured) - min(measured),
    )


def params(shape: Shape) -> int:
    """Return the parameters that a plan counts, including missing halves and the head layer."""
    units = counts.per_head(shape) * sum(shape.num_heads) + counts.per_channel(shape) * sum(shape.hidden_dim)
    return (counts.fixed(shape) + units).params


def write(shape: Shape, path: Path) -> Path:
    """Write a network with random weights and biases: equal ones would be stored only once."""
    generator = torch.Generator().manual_seed(0)
    model = VisionTransformer(shape).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0.0, 0.02, generator=generator)
    export_onnx(model, path)
    return path


def peaks(path: Path, settings: str, processes: int) -> list[int]:
    """Return the peak memory [bytes] of each of several processes that run a file."""
    return [int(run_child("peak", settings, str(path))["peak_bytes"]) for _ in range(processes)]


def run_child(*arguments: str) -> dict[str, float]:
    """Return the measurements of a fresh process."""
    command = [sys.executable, "-m", "benchmarks.memory.child", *arguments]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured
