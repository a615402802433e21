"""Time the networks of this folder on this device: python probe.py [--threads 1,4] [--seconds 240].

Needs Python 3.9 or later, numpy and onnxruntime; nothing else. Writes latency.json for `planner probe add`.
Stopped at any moment (Ctrl-C), it keeps what it has; the same command goes on from there.

The networks take turns, round after round, so that a slow moment of the device hits them all. In its turn a network
runs unmeasured for a moment, then measured; the shortest run counts. Its time is the median over the rounds.
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
from pathlib import Path
from typing import Any

try:
    import numpy
    import onnxruntime
except ImportError as _error:
    sys.exit(f"probe.py needs {_error.name}, which is not installed: pip install numpy onnxruntime.")

LEAST_ROUNDS = 3
STABLE_ROUNDS = 5
# Stable: the standard error of each median is at most this share of it.
STABLE_ERROR = 0.01
# In a turn: idle threads of the network before stop spinning in some 50 ms.
WARM_SECONDS = 0.05
TIMED_SECONDS = 0.03
LEAST_RUNS = 2
MOST_THREADS_KEPT = 256


class ProbeError(Exception):
    """What the user can act on, in one sentence."""


class Probe:
    """One network at one precision and thread count, and its rounds [us]."""

    def __init__(self, network: str, precision: str, threads: int, path: Path, num_bytes: int) -> None:
        self.network, self.precision, self.threads = network, precision, threads
        self.path, self.num_bytes = path, num_bytes
        self.rounds_us: list[float] = []
        self.runs = 0
        self.reason: str | None = None
        self.session: Any = None

    @property
    def key(self) -> tuple[str, str, int]:
        return self.network, self.precision, self.threads

    @property
    def name(self) -> str:
        return f"{self.network} {self.precision} {self.threads} thread{'s' * (self.threads > 1)}"

    def visit(self, images: Any, keep_open: bool) -> None:
        """Run it for a moment, and add the shortest run as a round; what fails is noted and not tried again."""
        try:
            if self.session is None:
                self.session = open_session(self.path, self.threads)
            shortest, runs = time_us(self.session, images)
        # Whatever onnxruntime raises, the other networks can still be timed.
        except Exception as error:
            self.reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
            self.session = None
            return
        self.rounds_us.append(round(shortest, 2))
        self.runs += runs
        if not keep_open:
            self.session = None

    def timing(self) -> dict[str, Any]:
        """Return what latency.json says of it."""
        return {
            "network": self.network,
            "precision": self.precision,
            "threads": self.threads,
            "median_us": statistics.median(self.rounds_us),
            "spread": round(spread(self.rounds_us), 4),
            "runs": self.runs,
            "rounds_us": self.rounds_us,
        }

    def failure(self) -> dict[str, Any]:
        return {
            "network": self.network,
            "precision": self.precision,
            "threads": self.threads,
            "reason": self.reason,
        }


def open_session(path: Path, threads: int) -> Any:
    """Open a network as the runtime on the device does."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def time_us(session: Any, images: Any) -> tuple[float, int]:
    """Return the shortest run [us] of a short series behind a warm-up, and how many runs were measured."""
    feed = {session.get_inputs()[0].name: images}
    until = time.perf_counter() + WARM_SECONDS
    session.run(None, feed)
    while time.perf_counter() < until:
        session.run(None, feed)
    shortest, runs = float("inf"), 0
    until = time.perf_counter() + TIMED_SECONDS
    while runs < LEAST_RUNS or time.perf_counter() < until:
        start = time.perf_counter()
        session.run(None, feed)
        shortest, runs = min(shortest, time.perf_counter() - start), runs + 1
    return shortest * 1e6, runs


def spread(rounds_us: list[float]) -> float:
    """Return the scaled median deviation from the median, as a share of it: a robust standard deviation."""
    median = statistics.median(rounds_us)
    return 1.4826 * statistics.median(abs(us - median) for us in rounds_us) / median


def is_stable(probe: Probe) -> bool:
    """Say whether more rounds would hardly move the median: its standard error is 1.25 s / sqrt(n)."""
    n = len(probe.rounds_us)
    return n >= STABLE_ROUNDS and 1.2533 * spread(probe.rounds_us) / n**0.5 <= STABLE_ERROR


def run_rounds(probes: list[Probe], images: Any, seconds: float, save: Any) -> None:
    """Let the networks take turns until the time is up or all are stable; `save` is called after each round."""
    keep_open = has_room(probes)
    start = time.monotonic()
    while True:
        left = [p for p in probes if p.reason is None]
        # After an interruption, those that lack a round go first.
        least = min((len(p.rounds_us) for p in left), default=0)
        turn = [p for p in left if len(p.rounds_us) == least]
        began = time.monotonic()
        for i, probe in enumerate(turn):
            show_progress(least + 1, i, len(turn), probe.name, began, start, seconds)
            probe.visit(images, keep_open)
        save()
        left = [p for p in left if p.reason is None]
        now = time.monotonic()
        late = now - start + (now - began) > seconds
        rounds = min((len(p.rounds_us) for p in left), default=LEAST_ROUNDS)
        if (late and rounds >= LEAST_ROUNDS) or all(is_stable(p) for p in left):
            show("")
            return


def has_room(probes: list[Probe]) -> bool:
    """Say whether all networks can stay open: in half the free memory, with copies of the weights, few threads."""
    needed = sum(3 * p.num_bytes + 2**20 for p in probes)
    return needed < free_bytes() / 2 and sum(p.threads - 1 for p in probes) <= MOST_THREADS_KEPT


def show_progress(turn: int, done: int, total: int, name: str, began: float, start: float, seconds: float) -> None:
    """Show where it stands; the time left is known after a few networks."""
    now = time.monotonic()
    at_least = 0.0
    if done:
        a_round = (now - began) * total / done
        at_least = a_round * (max(0, LEAST_ROUNDS - turn) + 1 - done / total)
    left = max(seconds - (now - start), at_least)
    show(f"round {turn}, network {done + 1} of {total} ({name}), at most {left // 60:.0f} min {left % 60:.0f} s left")


def show(text: str) -> None:
    """Put a line on stderr, over the last one; silent where it is not a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K" + text)
        sys.stderr.flush()


def free_bytes() -> int:
    """Return the memory [bytes] that may still be taken; 1 GiB where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return 2**30


def peak_bytes() -> int:
    """Return the most memory [bytes] that this process held; 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def num_cores() -> int:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_name() -> str:
    """Return what the processor calls itself: on boards that is the board's model."""
    for path, key in (("/proc/device-tree/model", ""), ("/proc/cpuinfo", "model name")):
        try:
            text = Path(path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        found = [line.partition(":")[2] if key else line for line in text.splitlines() if line.startswith(key)]
        if found:
            return found[0].strip("\0 ")
    return platform.processor() or platform.machine()


def device() -> dict[str, Any]:
    """Return what was measured on, and with what."""
    return {
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "onnxruntime": onnxruntime.__version__,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu": cpu_name(),
        "cores": num_cores(),
    }


def sha256_of(data: Any) -> str:
    """Return the SHA-256 of the canonical JSON: keys sorted, no spaces."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_manifest(folder: Path) -> Any:
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ProbeError(f"{path}: cannot be read ({error.strerror}); run the probe.py of a probe folder.") from None
    except ValueError as error:
        raise ProbeError(f"{path}: not JSON ({error}); copy the probe folder again.") from None
    for network in manifest["networks"]:
        for file in network["files"].values():
            if not (folder / file["name"]).is_file():
                raise ProbeError(f"{folder / file['name']}: no such file; copy the probe folder again.")
    return manifest


def make_probes(folder: Path, manifest: Any, threads: list[int]) -> list[Probe]:
    """Return every network at every precision and thread count, in the order of the turns."""
    return [
        Probe(network["name"], precision, count, folder / file["name"], file["num_bytes"])
        for count in threads
        for network in manifest["networks"]
        for precision, file in network["files"].items()
    ]


def take_earlier(out: Path, probes: list[Probe], identity: dict[str, Any]) -> list[dict[str, Any]]:
    """Give the probes the rounds of an interrupted run; return the timings of thread counts not asked for now.

    A finished run is measured anew, one of another folder or device is overwritten.
    """
    try:
        earlier = json.loads(out.read_text(encoding="utf-8"))
        if any(earlier[key] != value for key, value in identity.items()):
            return []
        timings = {(t["network"], t["precision"], t["threads"]): t for t in earlier["timings"]}
        finished = earlier["complete"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    for probe in probes:
        timing = timings.pop(probe.key, None)
        if timing is not None and not finished:
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


def parse() -> argparse.Namespace:
    def counts(text: str) -> list[int]:
        numbers = sorted({int(part) for part in text.split(",")})
        if numbers[0] < 1:
            raise ValueError
        return numbers

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = sorted({1, num_cores()})
    parser.add_argument("--threads", type=counts, default=default, help="such as 1,4 [1 and the number of cores]")
    parser.add_argument("--seconds", type=float, default=240, help="about how long to measure [240]")
    parser.add_argument("--out", type=Path, default=Path("latency.json"), help="the result [latency.json]")
    return parser.parse_args()


def probe_device(options: argparse.Namespace) -> None:
    """Measure all, and write the result."""
    folder = Path(__file__).resolve().parent
    manifest = read_manifest(folder)
    identity = {"manifest_sha256": sha256_of(manifest), "device": device()}
    probes = make_probes(folder, manifest, options.threads)
    others = take_earlier(options.out, probes, identity)
    images = numpy.random.default_rng(0).standard_normal((1, *manifest["input_shape"])).astype(numpy.float32)

    def save() -> None:
        complete = all(p.reason or len(p.rounds_us) >= LEAST_ROUNDS for p in probes)
        result = {
            "schema_version": 1,
            **identity,
            "complete": complete,
            "peak_memory_bytes": peak_bytes(),
            "manifest": manifest,
            "timings": [p.timing() for p in probes if p.rounds_us and not p.reason] + others,
            "failures": [p.failure() for p in probes if p.reason],
        }
        write(options.out, result)

    try:
        run_rounds(probes, images, options.seconds, save)
    except KeyboardInterrupt:
        save()
        show("")
        raise
    for probe in probes:
        if probe.reason:
            print(f"{probe.name} failed and is left out: {probe.reason}")
    restless = [p for p in probes if p.rounds_us and spread(p.rounds_us) > 0.1]
    if len(restless) > len(probes) / 4:
        print("The times vary by over 10 %: something else keeps this device busy, or it throttles in the heat.")
    print(f"{options.out}: {sum(1 for p in probes if not p.reason)} timings; now: planner probe add {options.out} ...")


def main() -> None:
    """Run the script."""
    try:
        probe_device(parse())
    except ProbeError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.stderr.write("Stopped. What was finished is kept: the same command goes on from there.\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
