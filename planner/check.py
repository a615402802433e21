"""Is this plan valid, and are its numbers true?

Everything is recomputed from the profile and the fleet; nothing here knows how a plan is found.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction

from planner import cost
from planner.cost import DeviceCost
from planner.floor import RETENTION_TOLERANCE, floor_of
from planner.schema import Assignment, Fleet, Plan, Profile, nearest, sha256_of

# Retentions and energies are stored to six decimals.
_FLOAT_TOLERANCE = 1e-6


def check(plan: Plan, profile: Profile, fleet: Fleet) -> list[str]:
    """Return every rule that the plan breaks, in words; an empty list means that it is valid.

    Raises:
        InputError: If the profile and the fleet do not go together, whatever the plan.
    """
    for what, document, claimed in (
        ("profile", profile, plan.profile_sha256),
        ("fleet", fleet, plan.fleet_sha256),
    ):
        if (actual := sha256_of(document)) != claimed:
            return [f"the plan is for another {what}: {what}_sha256 is {claimed[:12]}..., got {actual[:12]}..."]
    devices = {device.name: device for device in cost.device_costs(profile, fleet)}
    shapes = [p for a in plan.assignments for p in (*_shape(a, profile), *_timed(a, devices))]
    names = list(_names(plan, profile, fleet))
    if shapes or names:
        return names + shapes
    problems = [p for a in plan.assignments for p in _costs(a, profile, devices[a.device])]
    problems += [p for a in plan.assignments for p in _floors(a, plan, profile)]
    return problems + list(_totals(plan, profile, fleet))


def check_sub_models(plan: Plan, profile: Profile) -> list[str]:
    """Return what is wrong with the plan's sub-models, whatever the fleet: classes, widths, indices."""
    problems = [problem for a in plan.assignments for problem in _shape(a, profile)]
    for a in plan.assignments:
        if profile.width(a.embed_dim) is None:
            problems.append(f"{a.device}: embed_dim must be a width of the profile, got {a.embed_dim}")
    return problems


def _names(plan: Plan, profile: Profile, fleet: Fleet) -> Iterator[str]:
    """Each device once, used or idle; each class somewhere."""
    times = Counter([a.device for a in plan.assignments])
    times.update(plan.idle)
    known = {member.name for member in fleet.members}
    for member in fleet.members:
        if times[member.name] != 1:
            yield f"device {member.name!r} must be assigned or idle once, got {times[member.name]} times"
    for name in times:
        if name not in known:
            yield f"device {name!r} is not in the fleet{nearest(name, known)}"
    served = {name for a in plan.assignments for name in a.classes}
    for name in profile.classes:
        if name not in served:
            yield f"class {name!r} must be served by a device, got none"
    if plan.fusion.device != fleet.aggregator:
        yield f"fusion.device must be the aggregator {fleet.aggregator!r}, got {plan.fusion.device!r}"


def _timed(a: Assignment, devices: dict[str, DeviceCost]) -> Iterator[str]:
    """The device can be timed at the width."""
    if a.device in devices and devices[a.device].at(a.embed_dim) is None:
        widths = [w.width.embed_dim for w in devices[a.device].widths]
        yield f"{a.device}: embed_dim must be one of {widths}, got {a.embed_dim}"


def _shape(a: Assignment, profile: Profile) -> Iterator[str]:
    """The indices of a sub-model exist, and each is named once, in order."""
    if len(set(a.classes)) < len(a.classes):
        yield f"{a.device}: classes must differ, got {list(a.classes)}"
    for name in a.classes:
        if name not in profile.classes:
            yield f"{a.device}: class {name!r} is not in the profile{nearest(name, profile.classes)}"
    num_groups = [len(block) for block in profile.channel_groups]
    yield from _indices(a.device, "kept_heads", a.kept_heads, [profile.num_heads] * profile.depth)
    yield from _indices(a.device, "kept_channel_groups", a.kept_channel_groups, num_groups)
    if set(a.retention) != set(a.classes):
        yield f"{a.device}: retention must name its classes {sorted(a.classes)}, got {sorted(a.retention)}"


def _indices(device: str, key: str, blocks: Sequence[Sequence[int]], limits: list[int]) -> Iterator[str]:
    if len(blocks) != len(limits):
        yield f"{device}: {key} must have {len(limits)} blocks, got {len(blocks)}"
        return
    for l, (block, limit) in enumerate(zip(blocks, limits, strict=True)):
        if list(block) != sorted(set(block)) or (block and not 0 <= block[0] <= block[-1] < limit):
            yield f"{device}: {key}[{l}] must rise within 0..{limit - 1}, got {list(block)}"


def _costs(a: Assignment, profile: Profile, device: DeviceCost) -> Iterator[str]:
    """The numbers of an assignment, and its memory budget."""
    at = device.at(a.embed_dim)
    assert at is not None
    heads, channels = cost.kept_counts(profile, a.kept_heads, a.kept_channel_groups)
    compute_us = at.time.compute_us(heads, channels)
    memory = device.memory_bytes(at.width, heads, channels)
    expected = {
        "send_us": at.send_us,
        "compute_us": compute_us,
        "return_us": at.return_us,
        "memory_bytes": memory,
        "estimated": at.time.estimated,
    }
    for key, value in expected.items():
        if getattr(a, key) != value:
            yield f"{device.name}: {key} must be {value}, got {getattr(a, key)}"
    energy = device.energy_mj(compute_us)
    if not _close(a.energy_mj, energy):
        yield f"{device.name}: energy_mj must be {energy}, got {a.energy_mj}"
    if memory > device.memory_budget_bytes:
        yield (f"{device.name}: memory must be within the budget of {device.memory_budget_bytes} bytes, got {memory}")


def _floors(a: Assignment, plan: Plan, profile: Profile) -> Iterator[str]:
    floor = floor_of(profile, plan.goal)
    for name in a.classes:
        kept = cost.retention(profile, name, a.embed_dim, a.kept_heads, a.kept_channel_groups)
        if not _close(a.retention[name], kept):
            yield f"{a.device}: retention of class {name!r} must be {kept:.6f}, got {a.retention[name]:.6f}"
        least = floor.of(profile.classes.index(name), len(a.classes))
        if kept < least - RETENTION_TOLERANCE:
            yield (
                f"{a.device}: class {name!r} must keep at least {least:.6f} of its importance beside "
                f"{len(a.classes) - 1} others, got {kept:.6f}"
            )


def _totals(plan: Plan, profile: Profile, fleet: Fleet) -> Iterator[str]:
    """Fusion, the fleet's latency, the bound and the gap."""
    rate: Fraction = cost.aggregator_rate(fleet)
    fusion_us = cost.fusion_us(profile, rate, sum(a.embed_dim for a in plan.assignments))
    if plan.fusion.latency_us != fusion_us:
        yield f"fusion.latency_us must be {fusion_us}, got {plan.fusion.latency_us}"
    latency_us = plan.bottleneck.latency_us + fusion_us
    if plan.latency_us != latency_us:
        yield f"latency_us must be {latency_us}, the slowest device and the fusion, got {plan.latency_us}"
    if plan.bound_us > plan.latency_us:
        yield f"bound_us must be at most latency_us {plan.latency_us}, got {plan.bound_us}"
    gap = gap_of(plan.latency_us, plan.bound_us)
    if not _close(plan.gap, gap):
        yield f"gap must be {gap}, got {plan.gap}"
    status = status_of(plan.latency_us, plan.bound_us)
    if plan.status != status:
        yield f"status must be {status!r} at latency {plan.latency_us} and bound {plan.bound_us}, got {plan.status!r}"
    limit_us = plan.goal.max_latency_us
    if limit_us is not None and plan.latency_us > limit_us:
        yield f"latency must be at most {plan.goal.max_latency_ms} ms, got {plan.latency_us / 1000} ms"


def gap_of(latency_us: int, bound_us: int) -> float:
    """Return (objective - bound) / objective."""
    return (latency_us - bound_us) / latency_us if latency_us else 0.0


def status_of(latency_us: int, bound_us: int) -> str:
    """Return "optimal" only where the objective meets its bound."""
    return "optimal" if latency_us == bound_us else "feasible"


def _close(a: float | None, b: float | None) -> bool:
    if a is None or b is None:
        return a is b
    return abs(a - b) <= _FLOAT_TOLERANCE
