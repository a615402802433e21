"""Options of a rehearsal, and all that is ready before the first image."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from planner.executor.bundle import Bundle
from planner.network.data import Samples
from planner.runtime.deployment import Deployment
from planner.runtime.rehearsal.predicted import Expectation
from planner.schema import Fleet

# A busy machine may not run a process for a while; no answer is to be lost for that.
_PATIENCE_US = 1_000_000


@dataclass(frozen=True)
class RehearsalOptions:
    """Options of a rehearsal.

    Attributes:
        num_images: Number of answers, from the first test image on and round again; the whole test part unless given.
        measured_compute: Let sub-models run at this machine's speed, instead of holding them to the plan.
        namespaces: Give each worker a network namespace with the planned bandwidth, instead of holding links.
        kills: Devices to take away, such as "pump@100"; each comes back some images later.
        stand_in: Let ONNX Runtime stand in for the C engine, instead of building workers in C.
    """

    num_images: int | None = None
    measured_compute: bool = False
    namespaces: bool = False
    kills: tuple[str, ...] = ()
    stand_in: bool = False


@dataclass(frozen=True)
class PreparedRehearsal:
    """Bundle, fleet and images of a rehearsal, and what is expected of each device."""

    bundle: Bundle
    fleet: Fleet
    test: Samples
    options: RehearsalOptions
    expected: Mapping[str, Expectation]
    deployment: Deployment
    load_average: float | None  # of this machine, before the rehearsal

    @property
    def deadline_us(self) -> int:
        """Deadline of each image [us]."""
        return 3 * self.deployment.manifest.latency_us + _PATIENCE_US


def load_average() -> float | None:
    """Return the number of processes that ran or waited for a core in the last minute, where the system tells it."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
