"""Part of a device folder that depends on its engine: the sub-model, the worker, and the answers it must give.

Legend: B images, ch channels, H height, W width, F features.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from planner.network.vit import VisionTransformer
from planner.schema import ImageInput, Precision

FeaturesOf = Callable[[NDArray[Any]], NDArray[np.float32]]
"""Exported sub-model: from images as they are sent (B, ch, H, W) to features (B, F), one image at a time."""


@dataclass(frozen=True)
class SubModelFacts:
    """Sub-model of a device folder: whose it is, and how its images are sent.

    Attributes:
        device: Name of the device.
        bundle: SHA-256 of the bundle's manifest, hexadecimal.
        image: Image as it is sent.
        precision: Precision of the weights.
        speaks_tls: True if a worker in C speaks TLS beyond loopback; one of Python always does.
    """

    device: str
    bundle: str
    image: ImageInput
    precision: Precision
    speaks_tls: bool = False


@dataclass(frozen=True)
class ExpectedAnswers:
    """Answers for the self-test of a worker.

    Attributes:
        images: Images as they are sent (B, ch, H, W).
        features: Their features (B, F).
        are_measured: False if they are torch's in float32, as nothing here could run the exported sub-model.
    """

    images: NDArray[Any]
    features: NDArray[np.float32]
    are_measured: bool


class EngineFolder(Protocol):
    """Writer of what an engine needs in a device folder."""

    model: str
    """File of the sub-model that the manifest names."""

    def write_network(self, network: VisionTransformer, precision: Precision, image: ImageInput, folder: Path) -> None:
        """Write a sub-model.

        Raises:
            InputError: If the engine cannot run it.
        """

    def load(self, folder: Path) -> FeaturesOf | None:
        """Return the sub-model that was written, or None if nothing here can run it."""

    def write_worker(self, folder: Path, about: SubModelFacts, expected: ExpectedAnswers) -> Sequence[str]:
        """Write the worker, and return the names of all files so far."""
