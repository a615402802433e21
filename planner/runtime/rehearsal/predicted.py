"""Predictions for a rehearsal: times of each device, and those that its worker waits for.

A shared medium needs nothing of its own where links are held: a plan counts each device as the last in the queue of its
medium, so its planned send time holds the waiting for all other messages on it, and so does the held one.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from planner.rules import cost
from planner.schema import Assignment, Device, Engine, Fleet, Plan, Profile

# Kind of the machine that measured a profile.
LOCAL = "local"


@dataclass(frozen=True)
class Expectation:
    """Predicted times of one device [us], and for each step that its worker holds the time that it waits."""

    send_us: int
    compute_us: int | None  # None: nothing predicts this machine's compute time
    return_us: int
    hold: Mapping[str, int]

    @property
    def latency_us(self) -> int | None:
        """Latency of one image on the device [us], if all of it is predicted."""
        return None if self.compute_us is None else self.send_us + self.compute_us + self.return_us


def expectations(
    plan: Plan,
    profile: Profile,
    *,
    measured_compute: bool,
    engines: Mapping[str, Engine] | None = None,
    link_latency_us: Mapping[str, tuple[int, int]] | None = None,
) -> dict[str, Expectation]:
    """Return what is expected of each used device.

    Args:
        plan: The plan.
        profile: Its profile.
        measured_compute: Predict compute for this machine and hold none of it, instead of holding it to the plan.
        engines: Engine that runs each device's sub-model here; ONNX Runtime unless given.
        link_latency_us: Hold so much of sending to each device and of returning [us], and leave the rest to the
            network; unless given, all of their planned time is held.
    """
    expected = {}
    for a in plan.assignments:
        engine = (engines or {}).get(a.device, "onnxruntime")
        compute_us = local_compute_us(profile, a, engine) if measured_compute else a.compute_us
        held_us = {"send": a.send_us, "compute": 0 if measured_compute else a.compute_us, "return": a.return_us}
        if link_latency_us is not None:
            held_us["send"], held_us["return"] = link_latency_us[a.device]
        hold = {step: us for step, us in held_us.items() if us > 0}
        expected[a.device] = Expectation(a.send_us, compute_us, a.return_us, hold)
    return expected


def whole_us(expected: Mapping[str, Expectation], fusion_us: int) -> int | None:
    """Return the expected latency of the whole answer [us], if that of every device is known."""
    latencies = [e.latency_us for e in expected.values()]
    known = [us for us in latencies if us is not None]
    return max(known) + fusion_us if len(known) == len(latencies) else None


def local_compute_us(profile: Profile, a: Assignment, engine: Engine) -> int | None:
    """Return the compute time [us] of a sub-model in an engine by the table of kind `local`, if that was timed."""
    precision = a.precision or "float32"
    timed = {(row.engine, row.precision) for row in profile.latency.get(LOCAL, ())}
    if (engine, precision) not in timed and (engine == "c" or (engine, "float32") not in timed):
        return None
    # Costs are those of a fleet: a single device of that kind.
    device = Device(name=LOCAL, kind=LOCAL, memory_budget=1, engine=engine, precision=precision)
    (costs,) = cost.device_costs(profile, Fleet(aggregator=LOCAL, devices=(device,)))
    at = costs.at(a.embed_dim, precision)
    return None if at is None else at.time.compute_us(*cost.kept_counts(profile, a.kept_heads, a.kept_channel_groups))
