"""Check of a plan: every number is recomputed from the profile and the fleet, without knowledge of any solver."""

from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction

from planner.rules import cost
from planner.rules.accuracy import predict_accuracy, stays_within
from planner.rules.anchor_head import anchor_head
from planner.rules.cost import DeviceCost
from planner.rules.demands import demands_of
from planner.rules.floors import RETENTION_TOLERANCE, floors_of
from planner.rules.retention import fleet_retention
from planner.schema import Assignment, Fleet, Plan, Profile, did_you_mean, sha256_of

# Retentions and energies are stored to six decimals.
_FLOAT_TOLERANCE = 1e-6


def check(plan: Plan, profile: Profile, fleet: Fleet) -> list[str]:
    """Return a sentence for every rule that the plan breaks; an empty list means that it is valid.

    Raises:
        InputError: If the profile and the fleet do not go together, whatever the plan.
    """
    for part, document, claimed in (
        ("profile", profile, plan.profile_sha256),
        ("fleet", fleet, plan.fleet_sha256),
    ):
        if (actual := sha256_of(document)) != claimed:
            return [f"the plan is for another {part}: {part}_sha256 is {claimed[:12]}..., got {actual[:12]}..."]
    devices = {name: costs for costs, names in cost.equal_devices(profile, fleet).items() for name in names}
    demands = demands_of(profile, fleet, plan.goal)
    shapes = [p for a in plan.assignments for p in (*_shape(a, profile), *_timed(a, devices))]
    names = list(_names(plan, profile, fleet))
    if shapes or names:
        return names + shapes
    problems = [p for a in plan.assignments for p in _anchored(a, profile)]
    problems += [p for a in plan.assignments for p in _costs(a, profile, devices[a.device])]
    problems += _transfers(plan, fleet, devices)
    problems += [p for a in plan.assignments for p in _floors(a, plan, profile, devices[a.device])]
    relays = {name: device.relays for name, device in devices.items()}
    problems += demands.violations({a.device: a.classes for a in plan.assignments}, relays)
    problems += _predicted(plan, profile)
    return [*problems, *_totals(plan, profile, fleet), *_energy(plan, devices), *_certificate(plan)]


def check_sub_models(plan: Plan, profile: Profile) -> list[str]:
    """Return the problems of the plan's sub-models that do not depend on the fleet: classes, widths, units."""
    problems = [p for a in plan.assignments for p in _shape(a, profile)]
    if not problems:
        problems = [p for a in plan.assignments for p in _anchored(a, profile)]
    for a in plan.assignments:
        if profile.width(a.embed_dim) is None:
            problems.append(f"{a.device}: embed_dim must be a width of the profile, got {a.embed_dim}")
    return problems


def _predicted(plan: Plan, profile: Profile) -> Iterator[str]:
    """Yield a problem unless the stated accuracy is the predicted one, and no less than the goal allows."""
    stated = plan.predicted_accuracy
    expected = predict_accuracy(plan.assignments, profile)
    if expected is None:
        if stated is not None:
            yield "predicted_accuracy must be null, since the profile predicts none"
        if plan.goal.accuracy_drop is not None or plan.goal.objective == "accuracy":
            yield "the goal must be a min_retention, since the profile predicts no accuracy"
        return
    if stated is not None:
        for key, value in expected.model_dump().items():
            if not _close(getattr(stated, key), value):
                yield f"predicted_accuracy.{key} must be {value}, got {getattr(stated, key)}"
    yield from _drop(plan, profile)


def _drop(plan: Plan, profile: Profile) -> Iterator[str]:
    """Yield a problem if the plan is predicted to lose more than its goal allows."""
    goal = plan.goal
    if goal.accuracy_drop is None:
        return
    retention = fleet_retention(plan.assignments, profile)
    if not stays_within(profile, retention, goal.accuracy_drop, goal.accuracy_confidence):
        certain = "" if goal.accuracy_confidence is None else f" with confidence {goal.accuracy_confidence:g}"
        expected = predict_accuracy(plan.assignments, profile)
        assert expected is not None
        yield f"the predicted loss must be at most {goal.accuracy_drop:g}{certain}, got {expected.loss:g}"


def _names(plan: Plan, profile: Profile, fleet: Fleet) -> Iterator[str]:
    """Yield a problem for each device that is not used or idle exactly once, and for each class without a device."""
    times = Counter([a.device for a in plan.assignments])
    times.update(plan.idle)
    known = {member.name for member in fleet.members}
    for member in fleet.members:
        if times[member.name] != 1:
            yield f"device {member.name!r} must be assigned or idle once, got {times[member.name]} times"
    for name in times:
        if name not in known:
            yield f"device {name!r} is not in the fleet{did_you_mean(name, known)}"
    served = {name for a in plan.assignments for name in a.classes}
    for name in profile.classes:
        if name not in served:
            yield f"class {name!r} must be served by a device, got none"
    if plan.fusion.device != fleet.aggregator:
        yield f"fusion.device must be the aggregator {fleet.aggregator!r}, got {plan.fusion.device!r}"


def _timed(a: Assignment, devices: dict[str, DeviceCost]) -> Iterator[str]:
    """Yield a problem unless the device can be timed at the embed dim and has the precision."""
    if a.device in devices and devices[a.device].at(a.embed_dim, a.precision) is None:
        choices = [(w.width.embed_dim, w.precision) for w in devices[a.device].widths]
        yield f"{a.device}: embed_dim and precision must be one of {choices}, got {(a.embed_dim, a.precision)}"


def _shape(a: Assignment, profile: Profile) -> Iterator[str]:
    """Yield a problem for each class or unit that does not exist, is named twice or out of order."""
    if len(set(a.classes)) < len(a.classes):
        yield f"{a.device}: classes must differ, got {list(a.classes)}"
    for name in a.classes:
        if name not in profile.classes:
            yield f"{a.device}: class {name!r} is not in the profile{did_you_mean(name, profile.classes)}"
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


def _anchored(a: Assignment, profile: Profile) -> Iterator[str]:
    """Yield a problem unless the sub-model keeps the anchor head."""
    anchor, last = anchor_head(profile), a.kept_heads[-1]
    if anchor is not None and anchor not in last:
        yield (
            f"{a.device}: kept_heads[{profile.depth - 1}] must hold head {anchor}, the anchor head that every "
            f"sub-model keeps, got {list(last)}"
        )


def _costs(a: Assignment, profile: Profile, device: DeviceCost) -> Iterator[str]:
    """Yield a problem for each cost that is not the recomputed one, and for what is above its budget."""
    at = device.at(a.embed_dim, a.precision)
    assert at is not None
    heads, channels = cost.kept_counts(profile, a.kept_heads, a.kept_channel_groups)
    compute_us = at.time.compute_us(heads, channels)
    expected = {
        "compute_us": compute_us,
        "memory_bytes": device.memory_bytes(at, heads, channels),
        "storage_bytes": device.storage_bytes(at, heads, channels),
        "estimated": at.time.estimated,
    }
    for key, value in expected.items():
        if getattr(a, key) != value:
            yield f"{a.device}: {key} must be {value}, got {getattr(a, key)}"
    if a.engine not in (None, device.engine):
        yield f"{a.device}: engine must be {device.engine!r}, got {a.engine!r}"
    energy = device.energy_mj(compute_us)
    if not _close(a.energy_mj, energy):
        yield f"{a.device}: energy_mj must be {energy}, got {a.energy_mj}"
    for name, (used, budget) in device.budget_use(at, heads, channels).items():
        if used > budget:
            yield f"{a.device}: {name} must be within the budget of {budget} bytes, got {used}"


def _transfers(plan: Plan, fleet: Fleet, devices: dict[str, DeviceCost]) -> Iterator[str]:
    """Yield a problem for each wrong transfer time; devices that share a medium wait for each other."""
    used = [devices[a.device].at(a.embed_dim, a.precision) for a in plan.assignments]
    times = cost.transfers_us(fleet, [at for at in used if at is not None])
    for a, (send_us, return_us) in zip(plan.assignments, times, strict=True):
        if a.send_us != send_us:
            yield f"{a.device}: send_us must be {send_us}, got {a.send_us}"
        if a.return_us != return_us:
            yield f"{a.device}: return_us must be {return_us}, got {a.return_us}"


def _floors(a: Assignment, plan: Plan, profile: Profile, device: DeviceCost) -> Iterator[str]:
    """Yield a problem for each class whose retention is not the recomputed one, or below its floor."""
    floors = floors_of(profile, plan.goal, plan.retention_floor)
    at = device.at(a.embed_dim, a.precision)
    assert at is not None
    for name in a.classes:
        kept = cost.retention(profile, name, a.embed_dim, a.kept_heads, a.kept_channel_groups, at.precision)
        if not _close(a.retention[name], kept):
            yield f"{a.device}: retention of class {name!r} must be {kept:.6f}, got {a.retention[name]:.6f}"
        floor = floors[profile.classes.index(name)]
        if kept < floor - RETENTION_TOLERANCE:
            yield (f"{a.device}: class {name!r} must keep at least {floor:.6f} of its importance, got {kept:.6f}")


def _totals(plan: Plan, profile: Profile, fleet: Fleet) -> Iterator[str]:
    """Yield a problem for a wrong fusion time, latency or bound, and for a latency above the limit."""
    rate: Fraction = cost.aggregator_rate(fleet)
    fusion_us = cost.fusion_us(profile, rate, sum(a.embed_dim for a in plan.assignments))
    if plan.fusion.latency_us != fusion_us:
        yield f"fusion.latency_us must be {fusion_us}, got {plan.fusion.latency_us}"
    latency_us = plan.bottleneck.latency_us + fusion_us
    if plan.latency_us != latency_us:
        yield f"latency_us must be {latency_us}, the slowest device and the fusion, got {plan.latency_us}"
    if plan.bound_us > plan.latency_us:
        yield f"bound_us must be at most latency_us {plan.latency_us}, got {plan.bound_us}"
    if plan.goal_bound_us is not None and plan.goal_bound_us > plan.latency_us:
        yield f"goal_bound_us must be at most latency_us {plan.latency_us}, got {plan.goal_bound_us}"
    limit_us = plan.goal.max_latency_us
    if limit_us is not None and plan.latency_us > limit_us:
        yield f"latency must be at most {plan.goal.max_latency_ms} ms, got {plan.latency_us / 1000} ms"


def _energy(plan: Plan, devices: dict[str, DeviceCost]) -> Iterator[str]:
    """Yield a problem for energy above the limit, or not known where the goal depends on it."""
    limit_uj = plan.goal.max_energy_uj
    if limit_uj is None and plan.goal.objective != "energy":
        return
    total_uj = Fraction(0)
    for a in plan.assignments:
        power_w = devices[a.device].active_power_w
        if power_w is None:
            yield f"{a.device}: active_power_w must be known to plan with energy, got none"
            return
        total_uj += cost.energy_uj(power_w, a.compute_us)
    if limit_uj is not None and total_uj > limit_uj:
        yield f"energy must be at most {plan.goal.max_energy_mj} mJ, got {float(total_uj) / 1000:.6f} mJ"


def _certificate(plan: Plan) -> Iterator[str]:
    """Yield a problem for a wrong objective, bound, gap or status."""
    value, bound = (None, None) if plan.goal.objective == "latency" else (plan.value, plan.bound)
    if not _close(plan.objective_value, value):
        yield f"objective_value must be {value} for objective {plan.goal.objective!r}, got {plan.objective_value}"
    if (plan.objective_bound is None) != (value is None):
        yield f"objective_bound must be given beside objective_value, got {plan.objective_bound}"
    if (
        value is not None
        and bound is not None
        and (bound < value if plan.goal.objective == "accuracy" else bound > value)
    ):
        yield f"objective_bound must be no worse than objective_value {value}, got {bound}"
    gap = gap_of(plan.value, plan.bound)
    if not _close(plan.gap, gap):
        yield f"gap must be {gap}, got {plan.gap}"
    status = status_of(plan.value, plan.bound)
    if plan.status != status:
        yield f"status must be {status!r} at objective {plan.value} and bound {plan.bound}, got {plan.status!r}"


def gap_of(value: float, bound: float) -> float:
    """Return the distance between objective and bound, as a share of the objective."""
    return abs(value - bound) / value if value else 0.0


def status_of(value: float, bound: float) -> str:
    """Return "optimal" only where the objective meets its bound."""
    return "optimal" if value == bound else "feasible"


def _close(a: float | None, b: float | None) -> bool:
    if a is None or b is None:
        return a is b
    return abs(a - b) <= _FLOAT_TOLERANCE
