"""Measurements in a process of their own, which imports ONNX Runtime and numpy but no torch.

python -m benchmarks.memory.child peak ours model.onnx           -> {"peak_bytes": ...}
python -m benchmarks.memory.child times model.onnx default ours  -> {"default": seconds, "ours": seconds}
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from planner.runtime.device.session import open_session

RUNS = 3
ROUNDS = 15


def default(path: Path) -> onnxruntime.InferenceSession:
    """Open with ONNX Runtime's defaults and one thread."""
    return _session(path)


def without_packing(path: Path) -> onnxruntime.InferenceSession:
    """Open with our settings, but kernels read the weights directly from the mapped file."""
    return _session(path, ours=True, config={"session.disable_prepacking": "1"})


def with_reuse(path: Path) -> onnxruntime.InferenceSession:
    """Open with our settings, but buffers are reused for tensors of the same shape."""
    return _session(path, ours=True, enable_mem_reuse=True)


def with_pattern(path: Path) -> onnxruntime.InferenceSession:
    """Open with our settings, but the second run gets a pool that was planned in the first."""
    return _session(path, ours=True, enable_mem_pattern=True)


def with_bias_gelu(path: Path) -> onnxruntime.InferenceSession:
    """Open with our settings, but bias and GELU are one kernel, which needs a third buffer."""
    return _session(path, ours=True, disabled=[])


def without_arena(path: Path) -> onnxruntime.InferenceSession:
    """Open with our settings, but every tensor is allocated by the system and returned to it."""
    return _session(path, ours=True, enable_cpu_mem_arena=False)


SETTINGS: dict[str, Callable[[Path], onnxruntime.InferenceSession]] = {
    "default": default,
    "ours": open_session,
    "without packing": without_packing,
    "with reuse": with_reuse,
    "with pattern": with_pattern,
    "with BiasGelu": with_bias_gelu,
    "without arena": without_arena,
}


def main() -> None:
    """Run the measurement of the command line and print its result as JSON."""
    quantity, *rest = sys.argv[1:]
    if quantity == "peak":
        print(json.dumps({"peak_bytes": peak_bytes(SETTINGS[rest[0]](Path(rest[1])))}))
    else:
        print(json.dumps(times({name: SETTINGS[name](Path(rest[0])) for name in rest[1:]})))


def peak_bytes(session: onnxruntime.InferenceSession) -> int:
    """Return the peak resident memory of this process [bytes], after a few runs."""
    for _ in range(RUNS):
        session.run(None, image(session))
    # Not getrusage's maximum, which is inherited from the parent process.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def times(sessions: dict[str, onnxruntime.InferenceSession]) -> dict[str, float]:
    """Return the median CPU time [s] of a run in each session, taken in turns."""
    feed = image(next(iter(sessions.values())))
    samples: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(ROUNDS):
        for name, session in sessions.items():
            # A first run warms the caches, which the other sessions have filled.
            session.run(None, feed)
            start = time.process_time()
            session.run(None, feed)
            samples[name].append(time.process_time() - start)
    return {name: float(np.median(seconds)) for name, seconds in samples.items()}


def image(session: onnxruntime.InferenceSession) -> dict[str, NDArray[np.float32]]:
    """Return the input of a session: one image."""
    (value,) = session.get_inputs()
    return {value.name: np.full((1, *value.shape[1:]), 0.5, np.float32)}


def _session(
    path: Path,
    ours: bool = False,
    config: dict[str, str] | None = None,
    disabled: list[str] | None = None,
    **settings: bool,
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if ours:
        options.enable_mem_reuse = options.enable_mem_pattern = False
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        disabled = ["BiasGeluFusion"] if disabled is None else disabled
    for name, value in settings.items():
        setattr(options, name, value)
    for name, text in (config or {}).items():
        options.add_session_config_entry(name, text)
    return onnxruntime.InferenceSession(
        path, options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled or []
    )


if __name__ == "__main__":
    main()
