"""Fleets of equal and unequal devices, on links that cost nothing, so that only compute is compared.

`here` is this machine on one thread; `half` and `quarter` are two and four times slower: all their times are this
machine's, multiplied. A gateway has the image and joins the features, as fast as `here`; it runs no sub-model.
"""

from fractions import Fraction

from planner.schema import Fleet, Profile

HERE, HALF, QUARTER = "here", "half", "quarter"
SLOWDOWN = {HERE: 1, HALF: 2, QUARTER: 4}
GATEWAY = "gateway"

FLEETS: dict[str, dict[str, int]] = {
    "equal-4": {HERE: 4},
    "equal-1": {HERE: 1},
    "equal-2": {HERE: 2},
    "equal-8": {HERE: 8},
    "mixed-4": {HERE: 2, HALF: 2},
    "mixed-5": {HERE: 1, HALF: 1, QUARTER: 3},
}
# Memory of a kind in a fleet for weights and activations, as a share of the whole model's weights.
TIGHT: dict[str, dict[str, Fraction]] = {"mixed-5": {QUARTER: Fraction(3, 5)}}

OVERHEAD_BYTES = 80 * 2**20
_GENEROUS_BYTES = 2**30
_FLOAT_BYTES = 4


def fleet_of(name: str, macs_per_second: float, whole_params: int) -> Fleet:
    """Return one of the fleets.

    Args:
        name: A key of `FLEETS`.
        macs_per_second: Rate at which the gateway computes the fusion.
        whole_params: Number of the whole model's parameters, of which a tight memory is a share.
    """
    tight = {kind: int(share * whole_params * _FLOAT_BYTES) for kind, share in TIGHT.get(name, {}).items()}
    boards = [
        {
            "name": kind,
            "kind": kind,
            "count": count,
            "memory_budget": OVERHEAD_BYTES + tight.get(kind, _GENEROUS_BYTES),
            "runtime_overhead": OVERHEAD_BYTES,
        }
        for kind, count in FLEETS[name].items()
    ]
    gateway = {"name": GATEWAY, "macs_per_second": macs_per_second, "memory_budget": _GENEROUS_BYTES}
    return Fleet.model_validate(
        {
            "name": name,
            "aggregator": GATEWAY,
            "devices": [gateway, *boards],
            "default_link": {"bandwidth_mbps": 1e9, "latency_ms": 0.0},
        }
    )


def with_slower_kinds(profile: Profile) -> Profile:
    """Return the profile with the latency tables of `here` and of the slower kinds, and no others."""
    rows = profile.latency[HERE]
    tables = {
        kind: [row.model_dump() | _scaled_times(row.model_dump(), by) for row in rows] for kind, by in SLOWDOWN.items()
    }
    return Profile.model_validate(profile.model_dump() | {"latency": tables})


def _scaled_times(row: dict[str, float], by: int) -> dict[str, float]:
    return {key: by * value for key, value in row.items() if key.endswith("_us")}
