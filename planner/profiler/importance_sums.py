"""Importance of a model's units as sums over images, which a file keeps while they are measured.

A unit is a head, a hidden channel or an embed dim. Every image gives each unit a value; the importance of a unit for
a class is the mean of these values over the images of the class.

Legend: B images, C classes, L blocks, H heads, c hidden channels, E embed dims.
"""

import hashlib
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from planner.arrays import Floats
from planner.errors import InputError
from planner.network.vit import Shape, VisionTransformer
from planner.schema.base import write_bytes

# Shortest time [s] between two writes of the sums.
_MIN_SAVE_INTERVAL_S = 30.0


@dataclass(frozen=True)
class UnitImportance:
    """Importance of every unit for every class: heads (C, L, H), channels (C, L, c), embed_dims (C, E).

    Importance is additive over units. A share of it is made of the sum's power `exponent`: 0.5 where squares add up, 1
    where the measured value is a share by itself. In the latter case it may be negative: the unit does harm.
    """

    heads: Floats
    channels: Floats
    embed_dims: Floats
    exponent: float = 0.5


@dataclass(frozen=True)
class UnitValues:
    """Value of each unit for each image: heads (B, L, H), channels (B, L, c), embed_dims (B, E)."""

    heads: Tensor
    channels: Tensor
    embed_dims: Tensor


# The names of its fields are keys of the file's metadata.
@dataclass(frozen=True)
class MeasurementIdentity:
    """Model, data and method of a measurement: its sums can only be continued with the same."""

    weights: str
    method: str
    number_of_images: int
    labels: str
    seed: int


def weights_hash(model: VisionTransformer) -> str:
    """Return the SHA-256 of a network's parameters, their names and order included."""
    digest = hashlib.sha256()
    for name, p in model.state_dict().items():
        digest.update(f"{name} {tuple(p.shape)} {p.dtype}".encode())
        digest.update(p.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def labels_hash(labels: Tensor) -> str:
    """Return the SHA-256 of the labels, in their order."""
    return hashlib.sha256(labels.cpu().long().contiguous().numpy().data).hexdigest()


@dataclass
class ImportanceSums:
    """Sums of values over the images of each class, and how many images they include.

    Kept in a file, they let a killed measurement continue and end with bit for bit the same result.
    """

    heads: Tensor
    channels: Tensor
    embed_dims: Tensor
    num_done: int = 0
    _is_consistent: bool = True
    _saved_at: float = field(default_factory=time.monotonic)

    @classmethod
    def zero(cls, shape: Shape) -> "ImportanceSums":
        """Return empty sums for a model's units, in float64."""
        C, L = shape.num_classes, shape.depth
        return cls(
            heads=torch.zeros(C, L, shape.num_heads[0], dtype=torch.float64),
            channels=torch.zeros(C, L, shape.hidden_dim[0], dtype=torch.float64),
            embed_dims=torch.zeros(C, shape.embed_dim, dtype=torch.float64),
        )

    def add(self, labels: Tensor, values: UnitValues) -> None:
        """Add a batch: every image counts for its label's class.

        Args:
            labels: (B,).
            values: Of every unit, for each image.
        """
        # An interruption between these lines leaves sums of different images, from which nobody can continue.
        self._is_consistent = False
        self.heads.index_add_(0, labels, values.heads)
        self.channels.index_add_(0, labels, values.channels)
        self.embed_dims.index_add_(0, labels, values.embed_dims)
        self.num_done += len(labels)
        self._is_consistent = True

    def means(self, counts: Tensor, exponent: float) -> UnitImportance:
        """Turn the sums into means, in place.

        Args:
            counts: Images of each class, (C,).
            exponent: See `UnitImportance`.
        """
        self._is_consistent = False
        for sums in (self.heads, self.channels, self.embed_dims):
            sums /= counts.view(-1, *[1] * (sums.ndim - 1))
        return UnitImportance(self.heads.numpy(), self.channels.numpy(), self.embed_dims.numpy(), exponent)

    def save(self, path: Path, identity: MeasurementIdentity) -> None:
        """Write the sums to a file, unless a batch is only partly added."""
        if not self._is_consistent:
            return
        tensors = {"heads": self.heads, "channels": self.channels, "embed_dims": self.embed_dims}
        write_bytes(path, save(tensors, _metadata(identity) | {"num_done": str(self.num_done)}))
        self._saved_at = time.monotonic()

    def save_if_due(self, path: Path, identity: MeasurementIdentity) -> None:
        """Write the sums if the last time was long ago."""
        if time.monotonic() - self._saved_at >= _MIN_SAVE_INTERVAL_S:
            self.save(path, identity)

    def resume(self, path: Path, identity: MeasurementIdentity) -> None:
        """Load the sums of a file, if it exists.

        Raises:
            InputError: If it is not such a file, or belongs to another measurement.
        """
        if not path.exists():
            return
        try:
            with safe_open(os.fspath(path), framework="pt") as file:
                metadata = file.metadata() or {}
                _check_identity(path, metadata, identity)
                for name in ("heads", "channels", "embed_dims"):
                    getattr(self, name).copy_(file.get_tensor(name))
                self.num_done = int(metadata["num_done"])
        except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
            raise InputError(
                f"{path}: not a state of measured importance ({error}); delete it to begin again."
            ) from None


def _metadata(identity: MeasurementIdentity) -> dict[str, str]:
    return {name: json.dumps(value) for name, value in vars(identity).items()}


def _check_identity(path: Path, metadata: dict[str, str], identity: MeasurementIdentity) -> None:
    for name, expected in _metadata(identity).items():
        if metadata[name] != expected:
            label = name.replace("_", " ")
            raise InputError(
                f"{path}: holds importance of another measurement: {label} must be {expected[:20]}, "
                f"got {metadata[name][:20]}; delete it to begin again."
            )
