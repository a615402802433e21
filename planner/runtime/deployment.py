"""Reader of a deployment: the folder that `planner export` writes, every hash of it checked.

aggregator/manifest.json     the devices in the plan's order, what was planned, the SHA-256 of the rest
aggregator/fusion.npz        the fusion as arrays of float32
aggregator/token             the secret that the aggregator and all workers share
aggregator/certificates/     the certificate of each device, which the aggregator pins; of one in C, if it speaks TLS
NN-NAME/                     all that a device needs; see `planner.runtime.device`

Legend: D devices, F features of all devices together, H hidden units of the fusion, C classes.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from planner.array_files import read_arrays
from planner.errors import InputError
from planner.files import read_text, sha256_of_file
from planner.runtime.device.names import MANIFEST, TOKEN
from planner.schema import AggregatorManifest, DeployedDevice, DeviceManifest, read_document

AGGREGATOR, FUSION, CERTIFICATES = "aggregator", "fusion.npz", "certificates"
MODEL, WEIGHTS, WORKER, RUN = "model.onnx", "model.onnx.data", "worker.pyz", "run.sh"

_MAX_TOKEN_BYTES = 1024


@dataclass(frozen=True)
class DeviceFolder:
    """Folder of one device, and what its manifest says."""

    path: Path
    manifest: DeviceManifest
    certificate: Path | None  # the aggregator's copy, which it pins; None for a worker in C that speaks no TLS


@dataclass(frozen=True)
class Deployment:
    """Content of a deployment whose files are those that were exported.

    Attributes:
        path: Folder of the deployment.
        manifest: Manifest of the aggregator.
        devices: Folders of the devices, in the plan's order.
        fusion: mean and std (F,), fc1.weight (H, F), fc1.bias (H,), fc2.weight (C, H), fc2.bias (C,), float32.
        token: Secret that the aggregator and all workers share, 32 bytes.
    """

    path: Path
    manifest: AggregatorManifest
    devices: tuple[DeviceFolder, ...]
    fusion: Mapping[str, NDArray[np.float32]]
    token: bytes


def read_deployment(path: Path) -> Deployment:
    """Read a deployment.

    Raises:
        InputError: If it is unfinished, a file is missing or changed, or a path leaves its folder.
    """
    if not (path / AGGREGATOR / MANIFEST).is_file():
        raise InputError(f"{path}: must be a deployment that planner export wrote, got no {AGGREGATOR}/{MANIFEST}.")
    aggregator = _folder(path, AGGREGATOR)
    manifest = read_document(aggregator / MANIFEST, AggregatorManifest)
    _check_files(aggregator, manifest.sha256)
    if FUSION not in manifest.sha256:
        raise InputError(f"{aggregator / MANIFEST}: sha256 must name {FUSION}, got {sorted(manifest.sha256)}.")
    devices = tuple(
        DeviceFolder(
            _folder(path, device.folder),
            _read_device(_folder(path, device.folder), device, manifest),
            None if device.certificate is None else _file(_folder(aggregator, CERTIFICATES), device.certificate),
        )
        for device in manifest.devices
    )
    return Deployment(
        path, manifest, devices, _read_fusion(aggregator / FUSION, manifest), _read_token(_file(aggregator, TOKEN))
    )


def _read_device(folder: Path, device: DeployedDevice, aggregator: AggregatorManifest) -> DeviceManifest:
    """Read a device's manifest, which must be the one that was exported, and check the hashes of its files."""
    _check_files(folder, {MANIFEST: device.manifest_sha256})
    manifest = read_document(folder / MANIFEST, DeviceManifest)
    expected = {
        "bundle": aggregator.bundle,
        "device": device.name,
        "input": aggregator.input,
        "features": device.features,
        "planned": device.planned,
        "engine": device.engine,
        "stand_in": device.stand_in,
    }
    for key, value in expected.items():
        if getattr(manifest, key) != value:
            raise InputError(f"{folder / MANIFEST}: {key} must be that of the aggregator's manifest; export again.")
    _check_files(folder, manifest.sha256)
    return manifest


def _check_files(folder: Path, sha256: Mapping[str, str]) -> None:
    """Check that files of a folder are those that were exported."""
    for name, expected in sha256.items():
        got = sha256_of_file(_file(folder, name))
        if got != expected:
            raise InputError(
                f"{folder / name}: SHA-256 must be {expected[:12]}..., got {got[:12]}...: the file was changed; "
                "copy the deployment again, or export it again."
            )


def _folder(parent: Path, name: str) -> Path:
    """Return a folder within another."""
    path = parent / name
    if path.is_symlink() or not path.is_dir():
        raise InputError(f"{path}: must be a folder of the deployment, got {_found(path)}.")
    return path


def _file(folder: Path, name: str) -> Path:
    """Return a file of a folder; a link would lead out of it."""
    path = folder / name
    if path.is_symlink() or not path.is_file():
        raise InputError(f"{path}: must be a file of the deployment, got {_found(path)}.")
    return path


def _found(path: Path) -> str:
    if path.is_symlink():
        return "a link"
    return "something else" if path.exists() else "nothing"


def _read_token(path: Path) -> bytes:
    text = read_text(path, _MAX_TOKEN_BYTES).strip()
    # The value is a secret: it is not said.
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise InputError(f"{path}: must hold 64 hexadecimal digits; export again.")
    return bytes.fromhex(text)


def _read_fusion(path: Path, manifest: AggregatorManifest) -> dict[str, NDArray[np.float32]]:
    """Return the arrays of the fusion, whose shapes follow from the manifest."""
    total, classes = sum(device.features for device in manifest.devices), len(manifest.classes)
    hidden = manifest.fusion_hidden
    shapes: dict[str, tuple[int, ...]] = {
        "mean": (total,),
        "std": (total,),
        "fc1.weight": (hidden, total),
        "fc1.bias": (hidden,),
        "fc2.weight": (classes, hidden),
        "fc2.bias": (classes,),
    }
    arrays = read_arrays(path, list(shapes), max_bytes=4 * sum(map(math.prod, shapes.values())))
    for name, shape in shapes.items():
        array = arrays[name]
        if array.shape != shape or array.dtype != np.float32:
            raise InputError(
                f"{path}: {name!r} must be float32 of shape {shape}, got {array.dtype} of {array.shape}; export again."
            )
        if not np.isfinite(array).all():
            raise InputError(f"{path}: {name!r} must be finite numbers, got NaN or infinity; export again.")
    return arrays
