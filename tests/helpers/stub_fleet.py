"""A deployment in memory and workers in threads, whose sub-models are a line of numpy: quick, and known by heart."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.runtime.deployment import Deployment, DeviceFolder
from planner.runtime.device.addresses import Endpoint, resolve
from planner.runtime.device.inference import Hold
from planner.runtime.device.worker import Served, Worker, server_context
from planner.schema import DeviceManifest, write_document
from planner.schema.base import write_bytes
from planner.schema.deployment import AggregatorManifest
from tests.helpers.common import PATIENCE_S

BUNDLE, TOKEN = "ab" * 32, bytes(range(32))
SHAPE = (1, 4, 4)
CLASSES = ("a", "b", "c")
HIDDEN = 5

Features = Callable[[memoryview], bytes]


def stub_deployment(
    names: Sequence[str] = ("hub", "pump", "vent"),
    num_features: Sequence[int] = (2, 3, 4),
    shape: tuple[int, int, int] = SHAPE,
    certificates: dict[str, Path] | None = None,
    seed: int = 0,
) -> Deployment:
    """Return a deployment with a random fusion; nothing of it lies on the disk but certificates, if there are any."""
    planned = {"send_us": 100, "compute_us": 200, "return_us": 50, "memory_bytes": 2**28}
    image = {"shape": shape, "dtype": "uint8", "preprocessing": {"mean": [0.5] * shape[0], "std": [0.5] * shape[0]}}
    devices, folders = [], []
    for place, (name, count) in enumerate(zip(names, num_features, strict=True)):
        entry = {"name": name, "folder": f"{place:02}-{name}", "features": count, "planned": planned}
        devices.append({**entry, "certificate": f"{place:02}.pem", "manifest_sha256": "0" * 64})
        hashes = {"model.onnx": "0" * 64}
        fields = {"bundle": BUNDLE, "device": name, "input": image, "features": count, "planned": planned}
        path = Path("deploy", f"{place:02}-{name}")
        certificate = (certificates or {}).get(name, Path("none.pem"))
        folders.append(DeviceFolder(path, DeviceManifest(**fields, sha256=hashes), certificate))
    manifest = AggregatorManifest(
        bundle=BUNDLE,
        aggregator=names[0],
        classes=CLASSES,
        input=image,
        devices=devices,
        fusion_hidden=HIDDEN,
        fusion_us=20,
        latency_us=370,
        accuracy={"num_images": 1, "bundle": 1.0, "exported": 1.0},
        sha256={"fusion.npz": "0" * 64},
    )
    return Deployment(Path("deploy"), manifest, tuple(folders), random_fusion(sum(num_features), seed), TOKEN)


def random_fusion(num_features: int, seed: int) -> dict[str, NDArray[Any]]:
    """Return the arrays of a fusion of features to three classes."""
    random = np.random.default_rng(seed)
    shapes = {"mean": (num_features,), "fc1.weight": (HIDDEN, num_features), "fc1.bias": (HIDDEN,)}
    shapes |= {"fc2.weight": (len(CLASSES), HIDDEN), "fc2.bias": (len(CLASSES),)}
    arrays = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return arrays | {"std": random.uniform(0.5, 2, num_features).astype(np.float32)}


def stub_image(seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> NDArray[np.uint8]:
    """Return a random image."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def stub_features(count: int) -> Features:
    """Return a sub-model whose features are the first pixels of the image, as shares of 255."""
    return lambda image: (np.frombuffer(image, np.uint8)[:count] / np.float32(255)).astype("<f4").tobytes()


def about(name: str, num_features: int, shape: tuple[int, int, int] = SHAPE) -> dict[str, Any]:
    """Return what a stub worker's hello tells."""
    image = {"shape": list(shape), "dtype": "uint8"}
    return {"device": name, "engine": "onnxruntime", "precision": "float32", "input": image, "features": num_features}


@contextmanager
def stub_worker(
    name: str,
    num_features: int,
    features: Features | None = None,
    listen: str = "127.0.0.1:0",
    hold: Hold = Hold(),  # noqa: B008 - immutable
    log: Callable[[str], None] = lambda line: None,
    **other: Any,
) -> Iterator[Endpoint]:
    """Run a worker in a thread, and yield the address that it listens on.

    Args:
        name: Name of the device.
        num_features: Number of features that it returns.
        features: Its sub-model; `stub_features` unless given.
        listen: Address to listen on.
        hold: Planned times to keep.
        log: Receiver of its log.
        other: `bundle`, `token`, `certificate` and `key` other than usual.
    """
    served = Served(
        bundle=other.get("bundle", bytes.fromhex(BUNDLE)),
        token=other.get("token", TOKEN),
        about=about(name, num_features) | other.get("about", {}),
        image_bytes=other.get("image_bytes", int(np.prod(SHAPE))),
        features_of=features or stub_features(num_features),
    )
    context = server_context(other["certificate"], other["key"]) if "certificate" in other else None
    worker = Worker(served, resolve(listen), context, log, hold)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield worker.endpoint
    finally:
        worker.stop()
        # A connection ends its waiting.
        with contextlib.suppress(OSError):
            socket.create_connection((worker.endpoint.host, worker.endpoint.port)).close()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def write_stub_deployment(path: Path) -> Path:
    """Write the stub deployment as an export would, without sub-models that run, and return its folder."""
    stub = stub_deployment()
    devices = []
    for device, folder in zip(stub.manifest.devices, stub.devices, strict=True):
        write_bytes(path / device.folder / "model.onnx", b"stub")
        hashes = {"model.onnx": sha256(b"stub").hexdigest()}
        write_document(path / device.folder / "manifest.json", folder.manifest.replace(sha256=hashes))
        content = (path / device.folder / "manifest.json").read_bytes()
        devices.append(device.replace(manifest_sha256=sha256(content).hexdigest()))
        write_bytes(path / "aggregator" / "certificates" / str(device.certificate), b"none")
    arrays: dict[str, Any] = dict(stub.fusion)
    np.savez(path / "aggregator" / "fusion.npz", **arrays)
    write_bytes(path / "aggregator" / "token", TOKEN.hex().encode())
    hashes = {"fusion.npz": sha256((path / "aggregator" / "fusion.npz").read_bytes()).hexdigest()}
    write_document(path / "aggregator" / "manifest.json", stub.manifest.replace(devices=devices, sha256=hashes))
    return path
