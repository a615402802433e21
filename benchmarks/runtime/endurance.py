"""What the runtime survives: a device killed every hundred images, and hours of images without growing."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.runtime.progress import OnStep
from planner.executor.bundle import read_bundle
from planner.runtime.aggregator import Aggregator
from planner.runtime.deployment import Deployment, read_deployment
from planner.runtime.export import export_bundle
from planner.runtime.rehearsal.crew import Crew
from planner.runtime.rehearsal.predicted import expectations
from planner.schema import Fleet

# Images come at this pace, so that a worker has the time to start between two kills.
_PACE_S = 0.03
_KILL_EVERY, _AWAY = 100, 50
_DEADLINE_US = 100_000


@dataclass(frozen=True)
class Kills:
    """Thousand images with a device killed every hundred."""

    num_images: int
    num_kills: int
    num_without: int  # answers without a device
    num_lost: int  # images that no device answered
    worst_us: int  # latency of the slowest answer
    deadline_us: int
    back_s: list[float]  # from a worker listening again until it takes part


@dataclass(frozen=True)
class Soak:
    """Images answered for some minutes, and the resident memory [bytes] at the beginning and at the end."""

    minutes: float
    num_images: int
    first_bytes: dict[str, int]
    last_bytes: dict[str, int]


@contextmanager
def crew_of(bundle: Path, fleet: Fleet) -> Iterator[tuple[Deployment, Crew]]:
    """Run the workers of a bundle on this machine, links and compute held."""
    read = read_bundle(bundle)
    with tempfile.TemporaryDirectory() as name:
        export_bundle(read, fleet, Path(name, "deploy"))
        deployment = read_deployment(Path(name, "deploy"))
        held = expectations(read.plan, read.profile, measured_compute=False)
        with Crew(deployment, held, Path(name)) as crew:
            yield deployment, crew


def kill_again_and_again(bundle: Path, fleet: Fleet, on_step: OnStep, num_images: int = 1000) -> Kills:
    """Answer images while the devices are killed in turns, each back fifty images later; the last kill is in time."""
    with crew_of(bundle, fleet) as (deployment, crew):
        names = [d.name for d in deployment.manifest.devices]
        image = _image(deployment)
        without = lost = worst_us = kills = 0
        away: str | None = None
        back_s = []
        with Aggregator(deployment, crew.addresses, _DEADLINE_US) as aggregator:
            aggregator.connect(60)
            for number in range(1, num_images + 1):
                on_step("images", number, num_images)
                if number % _KILL_EVERY == 0 and number < num_images:
                    away = names[kills % len(names)]
                    crew.kill(away)
                    kills += 1
                elif number % _KILL_EVERY == _AWAY and away is not None:
                    crew.start(away)
                answer = aggregator.answer(image)
                without += bool(answer.missing)
                lost += answer.label is None
                worst_us = max(worst_us, answer.latency_us)
                since = crew.listening_since(away) if away in crew.pids else None
                if since is not None and away not in answer.missing:
                    back_s.append(time.monotonic() - since)
                    away = None
                time.sleep(_PACE_S)
    return Kills(num_images, kills, without, lost, worst_us, _DEADLINE_US, back_s)


def soak(bundle: Path, fleet: Fleet, on_step: OnStep, minutes: float) -> Soak:
    """Answer images for some minutes without a pause; memory is compared with that after the first tenth."""
    with crew_of(bundle, fleet) as (deployment, crew):
        image, num_images, first = _image(deployment), 0, None
        with Aggregator(deployment, crew.addresses, _DEADLINE_US) as aggregator:
            aggregator.connect(60)
            began = time.monotonic()
            while (passed := time.monotonic() - began) < 60 * minutes:
                aggregator.answer(image)
                num_images += 1
                on_step("minutes", round(passed / 60, 1), minutes)
                if first is None and passed > 6 * minutes:
                    first = _resident_bytes(crew)
            return Soak(minutes, num_images, first or {}, _resident_bytes(crew))


def _image(deployment: Deployment) -> "np.ndarray[tuple[int, ...], np.dtype[np.generic]]":
    image = deployment.manifest.input
    return np.zeros(image.shape, dtype=image.dtype)


def _resident_bytes(crew: Crew) -> dict[str, int]:
    return {name: _rss(f"/proc/{pid}/status") for name, pid in crew.pids.items()} | {
        "aggregator": _rss("/proc/self/status")
    }


def _rss(status: str) -> int:
    lines = Path(status).read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))
