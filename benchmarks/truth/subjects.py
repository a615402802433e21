"""Models whose plans are executed, and the fleets that they are planned for.

The shipped digits model is always there. Others are whole models on data sets that are not part of the repository: they
are looked for in $PLANNER_MODELS, or ../shared/models beside the repository, and left out with a line where missing.
"""

import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from benchmarks.data_sets import ROOT
from planner.rules.cost import macs
from planner.schema import Fleet, Profile

# A board of speed 1 runs the whole model in a second.
_WHOLE_SECONDS = 1
_OVERHEAD_BYTES = 64 * 1024
FLEETS = ("four equal boards", "unequal boards", "microcontrollers")


@dataclass(frozen=True)
class Subject:
    """Model with the minutes that its profile is given, and the fleets of its plans."""

    name: str
    card: str
    minutes: float
    fleets: tuple[str, ...] = FLEETS
    drops: tuple[float, ...] = (0.01, 0.02, 0.05)


def subjects() -> dict[str, Subject]:
    """Return all models by name, those included whose files are missing."""
    folder = Path(os.environ.get("PLANNER_MODELS", ROOT.parent / "shared" / "models"))
    found = [
        Subject("digits", "digits-vit", 20),
        Subject("fashion-mnist", str(folder / "fashion-mnist" / "card.json"), 10),
        Subject("cifar100", os.environ.get("PLANNER_CIFAR100_CARD", str(folder / "cifar100" / "card.json")), 10),
        Subject(
            "dinov2-small",
            os.environ.get("PLANNER_DINOV2_CARD", str(folder / "dinov2-small-caltech101" / "card.json")),
            60,
            FLEETS[:1],
            (0.05, 0.1),
        ),
    ]
    return {subject.name: subject for subject in found}


def is_there(subject: Subject) -> bool:
    """Return whether the model's card exists."""
    return not subject.card.endswith(".json") or Path(subject.card).exists()


def fleet_of(name: str, profile: Profile) -> Fleet:
    """Return a fleet in proportion to a model.

    Args:
        name: One of `FLEETS`.
        profile: Profile of the model.
    """
    whole = profile.widths[0]
    channels = [len(block) and sum(len(group) for group in block) for block in profile.channel_groups]
    rate = macs(whole, [profile.num_heads] * profile.depth, channels) / _WHOLE_SECONDS
    whole_bytes = 4 * (
        whole.fixed_params
        + sum(profile.num_heads * p for p in whole.head_params)
        + sum(c * p for c, p in zip(channels, whole.channel_params, strict=True))
    )
    speeds, memory, megabits = {
        FLEETS[0]: ((1.0,) * 4, (2.0,) * 4, 100.0),
        FLEETS[1]: ((1.0, 0.6, 0.35, 0.2), (2.0, 0.6, 0.6, 0.3), 50.0),
        FLEETS[2]: ((0.2,) * 6, (0.45,) * 6, 8.0),
    }[name]
    boards = [
        {
            "name": f"board-{i}",
            "macs_per_second": float(Fraction(rate) * Fraction(speed)),
            "memory_budget": int(share * whole_bytes) + _OVERHEAD_BYTES,
            "runtime_overhead": _OVERHEAD_BYTES,
        }
        for i, (speed, share) in enumerate(zip(speeds, memory, strict=True), start=1)
    ]
    return Fleet.model_validate(
        {
            "name": name,
            "aggregator": "board-1",
            "devices": boards,
            "default_link": {"bandwidth_mbps": megabits, "latency_ms": 0.5},
        }
    )
