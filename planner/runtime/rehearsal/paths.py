"""Paths between the aggregator and the devices that a plan uses."""

import math
from dataclasses import dataclass

from planner.rules.cost import device_costs
from planner.rules.links import Transfer
from planner.schema import Fleet, Plan, Profile


@dataclass(frozen=True)
class DevicePath:
    """Messages to a device and back."""

    send: Transfer
    returned: Transfer

    @property
    def media(self) -> frozenset[int]:
        """Numbers of the shared media that they pass."""
        return frozenset({*self.send.media, *self.returned.media})

    @property
    def latencies_us(self) -> tuple[int, int]:
        """Latencies of sending and of returning [us]: what does not grow with the bytes."""
        return math.ceil(self.send.latency_us), math.ceil(self.returned.latency_us)


def paths_of(fleet: Fleet, profile: Profile, plan: Plan) -> dict[str, DevicePath]:
    """Return the path of each used device, in the plan's order."""
    costs, found = {c.name: c for c in device_costs(profile, fleet)}, {}
    for a in plan.assignments:
        at = costs[a.device].at(a.embed_dim, a.precision)
        assert at is not None
        found[a.device] = DevicePath(at.send, at.returned)
    return found
