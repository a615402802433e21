"""Predicted and measured peak memory, and the effect of each session setting: docs/memory.md.

    python -m benchmarks.memory [--count 20] [--seed 7] [--out docs/memory.md]

Linux only: the peak is /proc's VmHWM of a fresh process.
"""

import argparse
import platform
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import onnxruntime
import torch

from benchmarks.memory import measure
from benchmarks.memory.child import RUNS, SETTINGS
from benchmarks.memory.measure import (
    DIGITS,
    ROOT,
    SMALL,
    TINY,
    MemoryRow,
    measure_row,
    overhead_bytes,
    peaks,
    random_sub_models,
    run_child,
    write,
)
from planner.network.export import quantise_int8
from planner.schema.base import write_text
from planner.schema.fleet import DEFAULT_RUNTIME_OVERHEAD_BYTES

MIB = 2**20
ODD = {
    "ViT-Tiny at 384": replace(TINY, image_size=384),
    "DeiT-Tiny distilled, 100 classes": replace(TINY, num_classes=100, distilled=True),
    "ViT-Tiny, patch 32": replace(TINY, patch_size=32),
    "ViT-Base, 4 blocks": replace(TINY, embed_dim=768, num_heads=(12,) * 4, hidden_dim=(3072,) * 4),
}


def main() -> None:
    """Measure all sub-models and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "memory.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        overhead = {depth: overhead_bytes(folder, depth) for depth in (1, 4, 12)}
        groups = {
            "ViT-Tiny": (TINY, random_sub_models(TINY, options.count, options.seed)),
            "digits-vit": (DIGITS, random_sub_models(DIGITS, options.count, options.seed)),
            "ViT-Small": (SMALL, random_sub_models(SMALL, options.count // 2, options.seed)),
        }
        groups |= {name: (whole, random_sub_models(whole, 2, options.seed)) for name, whole in ODD.items()}
        rows = [
            measure_row(n, whole, s, overhead[whole.depth], folder)
            for n, (whole, shapes) in groups.items()
            for s in [whole, *shapes]
        ]
        int8 = [
            measure_row(n, whole, s, overhead[whole.depth], folder, int8=True)
            for n, whole in (("ViT-Tiny", TINY), ("ViT-Small", SMALL))
            for s in [whole, *groups[n][1][:3]]
        ]
        lines = [*head(overhead), *summary(rows), *settings(folder), *of_int8(int8), *table(rows)]
    write_text(options.out, "\n".join(lines) + "\n")


def head(overhead: dict[int, int]) -> Iterator[str]:
    """Yield the lines about machine, method and overhead."""
    yield "# Peak memory of sub-models in ONNX Runtime"
    yield ""
    yield (
        f"{platform.machine()}, Python {platform.python_version()}, onnxruntime {onnxruntime.__version__}, one thread, "
        "one image, float32. The peak is the resident memory's high-water mark (VmHWM) of a fresh process that imports "
        f"numpy and onnxruntime, opens the file and runs it {RUNS} times; the median of "
        f"{measure.PROCESSES} processes, less the "
        "runtime's own overhead: the most of nine processes that do the same with a network of as many blocks, 8 wide, "
        "with one head and eight channels in each. Predicted is what a plan counts, the head layer and missing halves "
        "included. The constants of "
        "`planner/profiler/memory.py` were fitted on other random sub-models of ViT-Tiny, digits-vit and ViT-Small. "
        "`make bench-memory` writes this page."
    )
    yield ""
    yield (
        f"The runtime's own overhead is **{overhead[1] / MIB:.1f} MiB** here, and "
        f"{(overhead[12] - overhead[1]) / 11 / 1024:.0f} KiB for each block after the first; a plan takes "
        f"{DEFAULT_RUNTIME_OVERHEAD_BYTES / MIB:.0f} MiB where a device states none."
    )
    yield ""


def summary(rows: list[MemoryRow]) -> Iterator[str]:
    """Yield the table of errors by model."""
    yield "| model | sub-models | least ratio | median | largest | within 15 % | least spare [KiB] | most [KiB] |"
    yield "|---|---|---|---|---|---|---|---|"
    for name in dict.fromkeys(r.model for r in rows):
        of_model = [r for r in rows if r.model == name]
        ratios = [r.ratio for r in of_model]
        spare = [(r.predicted - r.measured) / 1024 for r in of_model]
        yield (
            f"| {name} | {len(of_model)} | {min(ratios):.3f} | {statistics.median(ratios):.3f} | {max(ratios):.3f} | "
            f"{sum(1 <= r <= 1.15 for r in ratios)} | {min(spare):,.0f} | {max(spare):,.0f} |"
        )
    yield ""


def settings(folder: Path) -> Iterator[str]:
    """Yield the table of session settings: peak beyond the runtime's overhead, and time."""
    import onnx

    yield "## Session settings"
    yield ""
    yield (
        "Peak beyond the overhead, and CPU time of one image as a ratio to ONNX Runtime's defaults in the same "
        "process, taken in turns. Ours is `planner/runtime/device/session.py`; the other rows change one thing about "
        "it."
    )
    yield ""
    yield "| model | settings | weights [MiB] | peak [MiB] | time |"
    yield "|---|---|---|---|---|"
    for name, whole in (
        ("digits-vit", DIGITS),
        ("ViT-Tiny", TINY),
        ("ViT-Small", SMALL),
        ("ViT-Tiny, uneven", random_sub_models(TINY, 1, 0)[0]),
    ):
        overhead = overhead_bytes(folder, whole.depth)
        weights = measure.params(replace(whole, num_classes=0)) * 4 / MIB
        path = write(whole, folder / "model.onnx")
        inside = folder / "inside.onnx"
        onnx.save_model(onnx.load(path), inside)
        quantise_int8(path, folder / "int8.onnx")
        seconds = {setting: run_child("times", str(path), "default", setting) for setting in SETTINGS}
        peak = statistics.median(peaks(inside, "default", 3)) - overhead
        yield f"| {name} | default, weights inside the file | {weights:.1f} | {peak / MIB:.1f} | |"
        for setting in SETTINGS:
            peak = statistics.median(peaks(path, setting, 3)) - overhead
            ratio = seconds[setting][setting] / seconds[setting]["default"]
            label = "default, weights beside the file" if setting == "default" else setting
            yield f"| {name} | {label} | {weights:.1f} | {peak / MIB:.1f} | {ratio:.2f} |"
        times = run_child("times", str(folder / "int8.onnx"), "default", "ours")
        peak = statistics.median(peaks(folder / "int8.onnx", "ours", 3)) - overhead
        ratio = times["ours"] / times["default"]
        label = "ours, int8 (time beside int8's default)"
        yield f"| {name} | {label} | {weights / 4:.1f} | {peak / MIB:.1f} | {ratio:.2f} |"
    yield ""


def of_int8(rows: list[MemoryRow]) -> Iterator[str]:
    """Yield the lines about errors of the same coefficients for int8."""
    yield "## int8"
    yield ""
    yield (
        "One byte for each parameter and the same activations. What is not a matrix product's weight stays float32 "
        "(patch embedding, positions, norms, biases), and the head layer, which is counted, is not in the file."
    )
    yield ""
    yield from table(rows, title=False)


def table(rows: list[MemoryRow], title: bool = True) -> Iterator[str]:
    """Yield the table of all sub-models."""
    if title:
        yield "## Every sub-model"
        yield ""
    yield "| model | embed dim | heads | channels | weights [KiB] | predicted [KiB] | measured [KiB] | +- | ratio |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for r in rows:
        s = r.shape
        yield (
            f"| {r.model} | {s.embed_dim} | {units(s.num_heads)} | {units(s.hidden_dim)} | {r.weights / 1024:,.0f} | "
            f"{r.predicted / 1024:,.0f} | {r.measured / 1024:,.0f} | {r.spread / 2048:,.0f} | {r.ratio:.3f} |"
        )
    yield ""


def units(counts: tuple[int, ...]) -> str:
    """Return "12 x 3", or each block's count."""
    return f"{len(counts)} x {counts[0]}" if len(set(counts)) == 1 else " ".join(map(str, counts))


if __name__ == "__main__":
    main()
