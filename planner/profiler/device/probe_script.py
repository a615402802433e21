"""Time the networks of this folder on this device, for `planner probe add`.

Needs Python 3.9 or later, numpy and onnxruntime; nothing else. Stopped at any moment (Ctrl-C), it keeps what it has;
the same command goes on from there.

The networks take turns, round after round, so that a slow moment of the device affects them all. In its turn a network
first warms up, then is measured; the shortest run counts. Its time is the median over the rounds.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

try:
    import numpy
    import onnxruntime
except ImportError as _error:
    sys.exit(f"probe.py needs {_error.name}, which is not installed: pip install numpy onnxruntime.")

MIN_ROUNDS = 3
# A median is stable when its standard error is this share of it, after at least so many rounds.
STABLE_ERROR, STABLE_ROUNDS = 0.01, 5
# Threads of the previous network keep spinning for some 50 ms.
WARM_SECONDS = 0.05
TIMED_SECONDS, MIN_RUNS = 0.03, 2
MAX_OPEN_THREADS = 256
HIGH_SPREAD = 0.1


class ProbeError(Exception):
    """A problem that the user can solve, described in one sentence."""


class TimedProbe:
    """Network at one precision and thread count, with its rounds [us]."""

    def __init__(self, network: str, precision: str, threads: int, path: Path, num_bytes: int) -> None:
        self.key: dict[str, Any] = {"network": network, "precision": precision, "threads": threads}
        self.name = f"{network} {precision}, {threads} thread{'s' * (threads > 1)}"
        self.threads, self.path, self.num_bytes = threads, path, num_bytes
        self.rounds_us: list[float] = []
        self.runs = 0
        self.reason = ""
        self.session: Any = None

    def run_round(self, images: Any, keep_open: bool) -> None:
        """Run the network for a moment, and add the shortest run as a round; a failure is recorded and final."""
        try:
            session = self.session or open_session(self.path, self.threads)
            shortest, runs = time_us(session, images)
        # Whatever onnxruntime raises, the other networks can still be timed.
        except Exception as error:
            self.reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
            self.session = None
            return
        self.rounds_us.append(round(shortest, 2))
        self.runs += runs
        self.session = session if keep_open else None

    @property
    def spread(self) -> float:
        """Median absolute deviation as a share of the median, scaled to estimate a standard deviation robustly."""
        median = statistics.median(self.rounds_us)
        return 1.4826 * statistics.median(abs(us - median) for us in self.rounds_us) / median

    @property
    def is_stable(self) -> bool:
        """True if the standard error of the median, 1.25 s / sqrt(n), is small enough."""
        n = len(self.rounds_us)
        return n >= STABLE_ROUNDS and 1.2533 * self.spread / n**0.5 <= STABLE_ERROR

    def timing(self) -> dict[str, Any]:
        """Return the entry of latency.json."""
        median_us, spread = statistics.median(self.rounds_us), round(self.spread, 4)
        times = {"median_us": median_us, "spread": spread, "runs": self.runs, "rounds_us": self.rounds_us}
        return {**self.key, **times}


def open_session(path: Path, threads: int) -> Any:
    """Open a network with the settings of the planner's own runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_reuse = False
    options.enable_mem_pattern = False
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    providers, disabled = ["CPUExecutionProvider"], ["BiasGeluFusion"]
    return onnxruntime.InferenceSession(str(path), options, providers=providers, disabled_optimizers=disabled)


def time_us(session: Any, images: Any) -> tuple[float, int]:
    """Return the shortest run [us] of a short series after a warm-up, and how many runs were measured."""
    feed = {session.get_inputs()[0].name: images}
    until = time.perf_counter() + WARM_SECONDS
    session.run(None, feed)
    while time.perf_counter() < until:
        session.run(None, feed)
    shortest, runs = float("inf"), 0
    until = time.perf_counter() + TIMED_SECONDS
    while runs < MIN_RUNS or time.perf_counter() < until:
        start = time.perf_counter()
        session.run(None, feed)
        shortest, runs = min(shortest, time.perf_counter() - start), runs + 1
    return shortest * 1e6, runs


def run_rounds(probes: list[TimedProbe], images: Any, seconds: float, save: Callable[[], None]) -> None:
    """Time the networks in turns until the time is up or all are stable; save after each round."""
    keep_open = has_room(probes)
    start = time.monotonic()
    while True:
        working = [p for p in probes if not p.reason]
        # After an interruption, those that lack a round go first.
        done = min((len(p.rounds_us) for p in working), default=0)
        turn = [p for p in working if len(p.rounds_us) == done]
        began = time.monotonic()
        for i, probe in enumerate(turn):
            show_progress(done + 1, i / len(turn), probe.name, began, start + seconds)
            probe.run_round(images, keep_open)
        save()
        working = [p for p in working if not p.reason]
        now = time.monotonic()
        # Another round would take as long as this one.
        is_late = now + (now - began) > start + seconds
        is_enough = all(len(p.rounds_us) >= MIN_ROUNDS for p in working)
        if (is_late and is_enough) or all(p.is_stable for p in working):
            write_status("")
            return


def has_room(probes: list[TimedProbe]) -> bool:
    """Return whether all can stay open: in half the free memory, with two weight copies, and with few threads."""
    needed = sum(3 * p.num_bytes + 2**20 for p in probes)
    return needed < free_bytes() / 2 and sum(p.threads - 1 for p in probes) <= MAX_OPEN_THREADS


def show_progress(number: int, done: float, name: str, began: float, end: float) -> None:
    """Show the round, the network and the time left, until the time limit or the last required round."""
    now = time.monotonic()
    a_round = (now - began) / done if done else 0.0
    left = max(end - now, a_round * (max(MIN_ROUNDS - number, 0) + 1 - done))
    write_status(f"round {number}, {done:.0%} ({name}), at most {left // 60:.0f} min {left % 60:.0f} s left")


def write_status(text: str) -> None:
    """Replace the last line on stderr if it is a terminal; print nothing otherwise."""
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K" + text)
        sys.stderr.flush()


def free_bytes() -> int:
    """Return the available memory [bytes]; 1 GiB where the system does not report it."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return 2**30


def peak_bytes() -> int:
    """Return the peak memory of this process [bytes]; 0 where the system does not report it."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def num_cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_name() -> str:
    """Return the name of the board, or else of the processor."""
    for path, key in (("/proc/device-tree/model", ""), ("/proc/cpuinfo", "model name")):
        try:
            lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        names = [line.partition(":")[2] if key else line for line in lines if line.startswith(key)]
        if names:
            return names[0].strip("\0 ")
    return platform.processor() or platform.machine()


def device() -> dict[str, Any]:
    """Return hardware and software of the measurement."""
    return {
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "onnxruntime": onnxruntime.__version__,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu": cpu_name(),
        "cores": num_cores(),
    }


def read_manifest(folder: Path) -> Any:
    """Return the folder's manifest, after checking that its files exist."""
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        names = [file["name"] for network in manifest["networks"] for file in network["files"].values()]
    except OSError as error:
        raise ProbeError(f"{path}: cannot be read ({error.strerror}); run the probe.py of a probe folder.") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProbeError(f"{path}: not a manifest of networks ({error}); copy the probe folder again.") from None
    for name in [*names, "weights.bin"]:
        if not (folder / name).is_file():
            raise ProbeError(f"{folder / name}: no such file; copy the whole probe folder again.")
    return manifest


def resume(out: Path, probes: list[TimedProbe], identity: dict[str, Any]) -> list[dict[str, Any]]:
    """Add the rounds of an interrupted run to the probes; return its timings of other networks or thread counts.

    A finished run is measured anew, and one of another folder or device is overwritten.
    """
    try:
        earlier = json.loads(out.read_text(encoding="utf-8"))
        if any(earlier[key] != value for key, value in identity.items()):
            return []
        timings = {(t["network"], t["precision"], t["threads"]): t for t in earlier["timings"]}
        is_finished = earlier["complete"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    for probe in probes:
        timing = timings.pop(tuple(probe.key.values()), None)
        if timing is not None and not is_finished:
            probe.rounds_us, probe.runs = timing["rounds_us"], timing["runs"]
    return list(timings.values())


def write(path: Path, data: Any) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise ProbeError(f"{path}: cannot be written ({error.strerror}).") from None


def probe_device(threads: list[int], seconds: float, out: Path) -> None:
    """Time all networks, write the result, and report failures."""
    folder = Path(__file__).resolve().parent
    manifest = read_manifest(folder)
    canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    identity = {"manifest_sha256": hashlib.sha256(canonical.encode()).hexdigest(), "device": device()}
    probes = [
        TimedProbe(network["name"], precision, count, folder / file["name"], file["num_bytes"])
        for count in threads
        for network in manifest["networks"]
        for precision, file in network["files"].items()
    ]
    others = resume(out, probes, identity)
    images = numpy.random.default_rng(0).standard_normal((1, *manifest["input_shape"])).astype(numpy.float32)

    def save() -> None:
        result = {
            "schema_version": 1,
            **identity,
            "complete": all(p.reason or len(p.rounds_us) >= MIN_ROUNDS for p in probes),
            "peak_memory_bytes": peak_bytes(),
            "manifest": manifest,
            "timings": [p.timing() for p in probes if p.rounds_us and not p.reason] + others,
            "failures": [{**p.key, "reason": p.reason} for p in probes if p.reason],
        }
        write(out, result)

    try:
        run_rounds(probes, images, seconds, save)
    except KeyboardInterrupt:
        save()
        raise
    failed = [p for p in probes if p.reason]
    if failed:
        print(
            f"{len(failed)} of {len(probes)} failed and are left out, the first {failed[0].name}: {failed[0].reason}."
        )
    timed = [p for p in probes if not p.reason]
    if timed and statistics.median(p.spread for p in timed) > HIGH_SPREAD:
        print("The times vary by over 10 %: something else keeps this device busy, or it slows down in the heat.")
    print(f"{out}: {len(timed)} timings. Next, where the planner is: planner probe add {out.name} ...")


def thread_counts(text: str) -> list[int]:
    """Return the thread counts of a comma-separated list."""
    counts = sorted({int(part) for part in text.split(",")})
    if counts[0] < 1:
        raise ValueError
    return counts


def main() -> None:
    """Parse the command line and time the networks."""
    parser = argparse.ArgumentParser(description="Time the networks of this folder on this device.")
    default = sorted({1, num_cores()})
    parser.add_argument("--threads", type=thread_counts, default=default, help="such as 1,4 [1 and the cores]")
    parser.add_argument("--seconds", type=float, default=240, help="about how long; never under 3 rounds [240]")
    parser.add_argument("--out", type=Path, default=Path("latency.json"), help="the result [latency.json]")
    options = parser.parse_args()
    try:
        probe_device(options.threads, options.seconds, options.out)
    except ProbeError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped. What was finished is kept: the same command goes on from there.\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
