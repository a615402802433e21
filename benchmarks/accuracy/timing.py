"""Times on this machine in ONNX Runtime, one thread, by the script that devices run.

Times do not depend on the weights' values, so networks are timed as soon as their shapes are known, before anything
is trained. Nothing else should run meanwhile.
"""

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

from benchmarks.accuracy.store import key_of, read_json, write_json
from planner.network.vit import Shape
from planner.profiler.device.probe_folder import MANIFEST, SCRIPT, write_networks
from planner.schema import ProbeResult, read_document

TIMES = "times.json"
# Of measurement for so many networks, at the least three rounds.
_SECONDS_EACH = 0.6


def probe(
    name: str, whole: Shape, shapes: Sequence[Shape], folder: Path, on_network: Callable[[int, int], None]
) -> ProbeResult:
    """Time networks in the same rounds; a folder that is finished is read, not measured again."""
    out = folder / "latency.json"
    if out.exists() and (known := read_document(out, ProbeResult)).complete:
        return known
    if not (folder / MANIFEST).exists():
        write_networks(name, whole, shapes, folder, ("float32",), 0, on_network)
    seconds = str(_SECONDS_EACH * len(shapes))
    command = [sys.executable, SCRIPT, "--threads", "1", "--seconds", seconds, "--out", out.name]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return read_document(out, ProbeResult)


def time_shapes(
    name: str, whole: Shape, shapes: Sequence[Shape], folder: Path, on_network: Callable[[int, int], None]
) -> dict[str, float]:
    """Return the time [us] of each shape by its key; those that were never timed are timed now, the whole with them.

    A network's time is its shortest round, which other work disturbs least, raised to the level of the medians.
    """
    times: dict[str, float] = read_json(folder / TIMES) or {}
    missing = {shape_key(s): s for s in (whole, *shapes) if shape_key(s) not in times}
    if missing:
        fresh = list(({shape_key(whole): whole} | missing).values())
        result = probe(name, whole, fresh, folder / key_of(sorted(map(shape_key, fresh))), on_network)
        shortest = [min(t.rounds_us) for t in result.timings]
        level = median(t.median_us / us for t, us in zip(result.timings, shortest, strict=True))
        names = {n.name: shape_key(s) for n, s in zip(result.manifest.networks, fresh, strict=True)}
        found = {names[t.network]: us * level for t, us in zip(result.timings, shortest, strict=True)}
        times = found | times
        write_json(folder / TIMES, times)
    return times


def shape_key(shape: Shape) -> str:
    """Return what a shape's time is known by."""
    return key_of(asdict(shape))
