"""Device folder: the manifest, hashes of all files, the sub-model, and a self-test against expected answers.

Shapes: ch channels, H height and W width of an image, F features, B images of the self-test.
"""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .errors import DeviceError
from .frames import SHA256_BYTES
from .names import DTYPES, EXPECTED, MANIFEST, TOKEN
from .session import open_session

# Largest difference from the expected features, as a share of the largest of them. Kernels for other processors add up
# in another order; in int8 a value beside the border between two steps falls to the other side.
_TOLERANCE = {"float32": 1e-3, "float16": 1e-2, "int8": 0.1}
_CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class SubModelFolder:
    """Content of a device folder, as its manifest says."""

    path: Path
    bundle: bytes  # SHA-256 of the bundle's manifest
    device: str
    model: str
    precision: str
    shape: tuple[int, int, int]  # ch, H, W
    dtype: str
    num_features: int
    threads: int

    @property
    def image_bytes(self) -> int:
        """Size of one image [bytes]."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize

    def about(self, held: tuple[str, ...]) -> dict[str, Any]:
        """Return what the worker's hello tells about it."""
        image = {"shape": list(self.shape), "dtype": self.dtype}
        told = {"device": self.device, "engine": "onnxruntime", "precision": self.precision, "input": image}
        return {**told, "features": self.num_features, "held": list(held)}


class LoadedSubModel:
    """Sub-model of a device folder, ready to answer."""

    def __init__(self, folder: SubModelFolder) -> None:
        self._session = open_session(folder.path / folder.model, folder.threads)
        self._name = self._session.get_inputs()[0].name
        self._dtype, self._shape = DTYPES[folder.dtype], (1, *folder.shape)
        self._num_features = folder.num_features

    def __call__(self, image: memoryview) -> bytes:
        """Return the features (F,) of an image (ch, H, W), both as bytes.

        Raises:
            DeviceError: If the network fails, or there are not as many features as the manifest says.
        """
        images = np.frombuffer(image, self._dtype).reshape(self._shape)
        try:
            features = self._session.run(None, {self._name: images})[0]
        # ONNX Runtime's exceptions have no common base but Exception.
        except Exception as error:
            raise DeviceError(f"the sub-model cannot be run ({str(error).strip().splitlines()[0]}).") from None
        if features.shape != (1, self._num_features):
            raise DeviceError(f"features must be of shape {(1, self._num_features)}, got {features.shape}.")
        return np.ascontiguousarray(features, dtype="<f4").tobytes()


def read_folder(path: Path) -> SubModelFolder:
    """Read a device folder, whose files must be those that were exported.

    Raises:
        DeviceError: If there is no manifest, it is not as the export writes it, or a file is missing or was changed.
    """
    file = path / MANIFEST
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        shape = tuple(int(side) for side in data["input"]["shape"])
        folder = SubModelFolder(
            path=path,
            bundle=bytes.fromhex(data["bundle"]),
            device=str(data["device"]),
            model=str(data["model"]),
            precision=str(data["precision"]),
            shape=(shape[0], shape[1], shape[2]),
            dtype=str(data["input"]["dtype"]),
            num_features=int(data["features"]),
            threads=int(data["threads"]),
        )
        hashes = {str(name): str(value) for name, value in data["sha256"].items()}
    except OSError as error:
        raise DeviceError(f"{file}: cannot be read ({error.strerror}); copy the device folder again.") from None
    except KeyError as error:
        raise DeviceError(f"{file}: must have the key {error}, got none.") from None
    except (ValueError, TypeError, AttributeError, IndexError, RecursionError):
        raise DeviceError(f"{file}: must be the manifest of a device folder; copy the folder again.") from None
    _check(file, folder, hashes)
    return folder


def _check(file: Path, folder: SubModelFolder, hashes: dict[str, str]) -> None:
    is_known = folder.dtype in DTYPES and folder.precision in _TOLERANCE and len(folder.bundle) == SHA256_BYTES
    if not is_known or min(*folder.shape, folder.num_features, folder.threads) < 1:
        raise DeviceError(f"{file}: must be the manifest of a device folder; copy the folder again.")
    for needed in (folder.model, EXPECTED):
        if needed not in hashes:
            raise DeviceError(f"{file}: sha256 must name {needed!r}, got {sorted(hashes)}.")
    for name, expected in hashes.items():
        if Path(name).name != name or "\0" in name:
            raise DeviceError(f"{file}: files must lie in the folder, got {name!r}.")
        got = _sha256(folder.path / name)
        if got != expected:
            raise DeviceError(
                f"{folder.path / name}: SHA-256 must be {expected[:12]}..., got {got[:12]}...: "
                "the file was changed; copy the device folder again."
            )


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    try:
        with file.open("rb") as opened:
            # A piece at a time: weights may be larger than the memory that is left.
            while chunk := opened.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise DeviceError(f"{file}: cannot be read ({error.strerror}); copy the device folder again.") from None
    return digest.hexdigest()


def read_token(path: Path) -> bytes:
    """Return the secret of a device folder.

    Raises:
        DeviceError: If there is none.
    """
    try:
        text = (path / TOKEN).read_text(encoding="ascii").strip()
        token = bytes.fromhex(text)
    except (OSError, ValueError):
        token = b""
    if len(token) != SHA256_BYTES:
        raise DeviceError(f"{path / TOKEN}: must hold the secret of the deployment, 64 hexadecimal digits.")
    return token


def run_self_test(folder: SubModelFolder, features_of: LoadedSubModel) -> float:
    """Compare the sub-model's answers with the expected ones.

    Returns:
        Largest difference, as a share of the largest expected feature.

    Raises:
        DeviceError: If it is more than rounding explains, or the expected answers cannot be read.
    """
    file = folder.path / EXPECTED
    try:
        with np.load(file, allow_pickle=False) as arrays:
            images, expected = arrays["images"], arrays["features"]  # (B, ch, H, W), (B, F)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DeviceError(f"{file}: must hold expected answers ({error}); copy the device folder again.") from None
    fits = images.dtype == DTYPES[folder.dtype] and images.shape[1:] == folder.shape
    if not fits or expected.shape != (len(images), folder.num_features) or not len(images):
        raise DeviceError(f"{file}: must hold images and features of the manifest's shapes; copy the folder again.")
    got = np.stack([np.frombuffer(features_of(memoryview(image.tobytes())), "<f4") for image in images])
    difference = float(np.abs(got - expected).max() / max(np.abs(expected).max(), 1e-6))
    # Written so that NaN fails.
    if not difference <= _TOLERANCE[folder.precision]:
        raise DeviceError(
            f"{folder.path}: self-test failed: answers must be within {_TOLERANCE[folder.precision]:.2g} of those "
            f"expected, got a difference of {difference:.2g}; another version of onnxruntime may help."
        )
    return difference
