"""Latency of an answer without a model: four worker processes on loopback, one aggregator, images of several sizes."""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.runtime.stub_worker import BUNDLE, TOKEN
from planner.runtime.aggregator import Aggregator
from planner.runtime.deployment import Deployment, DeviceFolder
from planner.schema import AggregatorManifest, DeviceManifest

NUM_WORKERS, NUM_FEATURES, HIDDEN, CLASSES = 4, 24, 64, 10
_ROOT = Path(__file__).parents[2]
_PLANNED = {"send_us": 0, "compute_us": 0, "return_us": 0, "memory_bytes": 0}
# An answer that takes longer is not one of a transport.
_DEADLINE_US = 10_000_000
_WARM_UP = 200


@dataclass(frozen=True)
class FanOut:
    """Latency of answers to images of one size [us]."""

    image_bytes: int
    num_images: int
    p10: float
    p50: float
    p99: float
    images_per_second: float  # with eight images under way


def measure(channels: int, side: int, num_images: int = 2000) -> FanOut:
    """Return the latency of square images of one size, a byte for each pixel and channel."""
    shape = (channels, side, side)
    deployment = _deployment(shape)
    with _workers(shape) as addresses, Aggregator(deployment, addresses, _DEADLINE_US) as aggregator:
        if down := aggregator.connect(60):
            raise RuntimeError(f"workers must come up within a minute, got {down}")
        image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        for _ in aggregator.answers([image] * _WARM_UP):
            pass
        answers = list(aggregator.answers([image] * num_images))
        if any(answer.missing for answer in answers):
            raise RuntimeError("every worker must answer every image")
        began = time.perf_counter()
        for _ in aggregator.answers([image] * num_images, in_flight=8):
            pass
        throughput = num_images / (time.perf_counter() - began)
        p10, p50, p99 = np.percentile([answer.latency_us for answer in answers], (10, 50, 99))
    return FanOut(image.nbytes, num_images, float(p10), float(p50), float(p99), throughput)


def _names() -> list[str]:
    return [f"worker-{i}" for i in range(NUM_WORKERS)]


@contextmanager
def _workers(shape: tuple[int, int, int]) -> Iterator[dict[str, str]]:
    """Run the workers, and yield their addresses."""
    with ExitStack() as stack:
        addresses = {}
        for name in _names():
            command = [sys.executable, "-m", "benchmarks.runtime.stub_worker", name]
            command += map(str, (NUM_FEATURES, shape[0], shape[1]))
            process = stack.enter_context(subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True))
            stack.callback(process.kill)
            assert process.stdout is not None
            addresses[name] = process.stdout.readline().strip()
        yield addresses


def _deployment(shape: tuple[int, int, int]) -> Deployment:
    """Return a deployment whose fusion is that of the demo in size."""
    preprocessing = {"mean": [0.0] * shape[0], "std": [1.0] * shape[0]}
    image = {"shape": shape, "dtype": "uint8", "preprocessing": preprocessing}
    devices, folders = [], []
    for name in _names():
        entry = {"name": name, "folder": name, "features": NUM_FEATURES, "planned": _PLANNED}
        devices.append({**entry, "certificate": f"{name}.pem", "manifest_sha256": "0" * 64})
        manifest = DeviceManifest(
            bundle=BUNDLE.hex(),
            device=name,
            input=image,
            features=NUM_FEATURES,
            planned=_PLANNED,
            sha256={"model.onnx": "0" * 64},
        )
        folders.append(DeviceFolder(Path(name), manifest, Path(f"{name}.pem")))
    aggregator = AggregatorManifest(
        bundle=BUNDLE.hex(),
        aggregator=_names()[0],
        classes=[str(i) for i in range(CLASSES)],
        input=image,
        devices=devices,
        fusion_hidden=HIDDEN,
        fusion_us=0,
        latency_us=0,
        accuracy={"num_images": 1, "bundle": 1.0, "exported": 1.0},
        sha256={"fusion.npz": "0" * 64},
    )
    total = NUM_WORKERS * NUM_FEATURES
    shapes: dict[str, Sequence[int]] = {"mean": (total,), "std": (total,), "fc1.weight": (HIDDEN, total)}
    shapes |= {"fc1.bias": (HIDDEN,), "fc2.weight": (CLASSES, HIDDEN), "fc2.bias": (CLASSES,)}
    fusion = {name: np.ones(shape, dtype=np.float32) for name, shape in shapes.items()}
    return Deployment(Path("none"), aggregator, tuple(folders), fusion, TOKEN)


def main() -> None:
    """Print a line for each size of image."""
    for channels, side in ((1, 16), (3, 112), (3, 224)):
        m = measure(channels, side)
        print(
            f"{NUM_WORKERS} workers, {m.image_bytes:,} bytes: p10 {m.p10 / 1000:.2f}, p50 {m.p50 / 1000:.2f}, "
            f"p99 {m.p99 / 1000:.2f} ms; {m.images_per_second:,.0f} images a second with eight under way"
        )


if __name__ == "__main__":
    main()
