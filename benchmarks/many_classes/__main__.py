"""Peak memory and time of profile, solve and execute with many classes, and what each image adds.

    python -m benchmarks.many_classes [--classes 1000] [--sizes 4000,16000] [--blocks 12]

Prints a table. What 1.28 million images would take is a straight line through both sizes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.many_classes.made_up import NUM_TEST_OF_EACH, write_images, write_model

NUM_IMAGES = 1_281_167
"""Training images of ImageNet-1k."""

_MIB = 2**20
# A few steps: of the images, each sub-model sees this many.
_SEEN = 512
_FLEET = {
    "schema_version": 1,
    "aggregator": "pi-1",
    "devices": [{"name": "pi", "count": 4, "kind": "raspberry-pi-4b", "memory_budget": "104MiB"}],
    "default_link": {"bandwidth_mbps": 100.0, "latency_ms": 1.0},
}


@dataclass(frozen=True)
class Used:
    """Peak memory [bytes] and processor time [s] of a command."""

    peak_bytes: int
    seconds: float


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--sizes", default="4000,16000", help="two numbers of training images")
    parser.add_argument("--blocks", type=int, default=12, help="blocks of the ViT-Tiny")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sizes = [int(size) for size in options.sizes.split(",")]
    used = {size: dict(_chain(size, options.classes, options.blocks)) for size in sizes}
    print(f"| step | {' | '.join(f'{size:,} images' for size in sizes)} | for each image | {NUM_IMAGES:,} images |")
    print(f"|---|{'---|' * (len(sizes) + 2)}")
    for step in used[sizes[0]]:
        of_step = [used[size][step] for size in sizes]
        cells = [f"{u.peak_bytes / _MIB:,.0f} MiB, {u.seconds:,.0f} s" for u in of_step]
        slope = max(0.0, (of_step[-1].peak_bytes - of_step[0].peak_bytes) / (sizes[-1] - sizes[0]))
        total = of_step[-1].peak_bytes + slope * (NUM_IMAGES - sizes[-1])
        print(f"| {step} | {' | '.join(cells)} | {slope / 1024:.1f} KiB | {total / 2**30:.1f} GiB |", flush=True)


def _chain(num_images: int, num_classes: int, num_blocks: int) -> Iterator[tuple[str, Used]]:
    """Yield what each step took, of the whole chain on so many training images."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_images(folder / "train", num_classes, num_images // num_classes, seed=0)
        write_images(folder / "test", num_classes, NUM_TEST_OF_EACH, seed=1)
        card = write_model(folder / "model", folder / "train", folder / "test", num_classes, num_blocks)
        devices, profile, plan = (folder / f"{name}.json" for name in ("devices", "profile", "plan"))
        devices.write_text(json.dumps(_FLEET))
        measured = ("--images-per-class", "2", "--trial-plans", "0", "--minutes", "10", "--jobs", "1")
        yield "profile", _run("profile", card, *measured, "--out", profile)
        of_fleet = ("--devices", devices, "--profile", profile)
        yield "solve", _run("solve", *of_fleet, "--min-retention", "0.3", "--time-limit", "60", "--out", plan)
        epochs = ("--epochs", f"{_SEEN / num_images:.6f}", "--jobs", "1")
        yield "execute", _run("execute", plan, "--profile", profile, "--model", card, *epochs, "--out", folder / "out")
        yield "evaluate", _run("evaluate", folder / "out")


def _run(*arguments: object) -> Used:
    """Run a command of the planner in a process of its own."""
    command = [sys.executable, "-c", "from planner.cli import main; main()", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"planner {arguments[0]} ended with {process.returncode}.")
    # Linux counts in KiB.
    return Used(usage.ru_maxrss * 1024, usage.ru_utime + usage.ru_stime)


if __name__ == "__main__":
    main()
