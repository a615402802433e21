"""Latency on this machine in ONNX Runtime, one thread, measured by the script that devices run.

Times do not depend on the weights' values, so networks are timed as soon as their shapes are known, before anything
is trained. Nothing else should run meanwhile.
"""

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

from benchmarks.accuracy.store import read_json, result_key, write_json
from planner.network.vit import Shape
from planner.profiler.device.probe_folder import MANIFEST, SCRIPT, write_networks
from planner.schema import ProbeResult, read_document

TIMES = "times.json"
# Duration of the measurement per network; it takes at least three rounds.
_SECONDS_PER_NETWORK = 0.6


def time_networks(
    name: str, whole: Shape, shapes: Sequence[Shape], folder: Path, on_network: Callable[[int, int], None]
) -> ProbeResult:
    """Time networks in the same rounds; a finished folder is read, not measured again."""
    out = folder / "latency.json"
    if out.exists() and (finished := read_document(out, ProbeResult)).complete:
        return finished
    if not (folder / MANIFEST).exists():
        write_networks(name, whole, shapes, folder, ("float32",), 0, on_network)
    seconds = str(_SECONDS_PER_NETWORK * len(shapes))
    command = [sys.executable, SCRIPT, "--threads", "1", "--seconds", seconds, "--out", out.name]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return read_document(out, ProbeResult)


def time_shapes(
    name: str, whole: Shape, shapes: Sequence[Shape], folder: Path, on_network: Callable[[int, int], None]
) -> dict[str, float]:
    """Return the time [us] of each shape by its key; shapes not cached yet are timed now, together with the whole.

    A network's time is its shortest round, which other load disturbs least, raised to the level of the medians.
    """
    times: dict[str, float] = read_json(folder / TIMES) or {}
    missing = {shape_key(s): s for s in (whole, *shapes) if shape_key(s) not in times}
    if missing:
        untimed = list(({shape_key(whole): whole} | missing).values())
        result = time_networks(name, whole, untimed, folder / result_key(sorted(map(shape_key, untimed))), on_network)
        shortest = [min(t.rounds_us) for t in result.timings]
        level = median(t.median_us / us for t, us in zip(result.timings, shortest, strict=True))
        names = {n.name: shape_key(s) for n, s in zip(result.manifest.networks, untimed, strict=True)}
        measured = {names[t.network]: us * level for t, us in zip(result.timings, shortest, strict=True)}
        times = measured | times
        write_json(folder / TIMES, times)
    return times


def shape_key(shape: Shape) -> str:
    """Return the key of a shape's time."""
    return result_key(asdict(shape))
