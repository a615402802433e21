"""Placements as plans: names in place of indices, the file's units, and the certificate."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version

from planner.rules.accuracy import predict_accuracy
from planner.rules.check import gap_of, status_of
from planner.rules.cost import kept_counts, retention, transfers_us
from planner.schema import Assignment, FusionCost, Plan, SolverRun, sha256_of
from planner.schema.plan import SolverMethod
from planner.solver.exact.warm_start import WarmStart
from planner.solver.large.search import latency_bound_us
from planner.solver.problem.instance import Instance
from planner.solver.problem.option import PlacedSubModel
from planner.solver.problem.placement import ByDevice
from planner.version import __version__


@dataclass(frozen=True)
class Solution:
    """Sub-model of each used device, the bounds, and what the search proved on the way.

    The bound is in the units of the search, or an accuracy as a share where that is the objective.
    """

    instance: Instance
    by_device: ByDevice
    bound: float
    warm_start: WarmStart
    goal_bound_us: int | None = None
    method: SolverMethod | None = None


def plan_of(solution: Solution, seed: int, seconds: float) -> Plan:
    """Return the plan of a solution.

    Args:
        solution: Result of the search.
        seed: Seed of the run, for the record.
        seconds: Time of the run, for the record.
    """
    instance, by_device, bound = solution.instance, solution.by_device, solution.bound
    order = [member.name for member in instance.fleet.members]
    names = [name for name in order if name in by_device]
    times = transfers_us(instance.fleet, [by_device[name].option.width_cost for name in names])
    assignments = [_assignment(instance, by_device[name], name, *us) for name, us in zip(names, times, strict=True)]
    fusion_us = instance.fusion_us(sum(a.embed_dim for a in assignments))
    latency_us = max(a.latency_us for a in assignments) + fusion_us
    of_latency = instance.goal.objective == "latency"
    draft = Plan(
        status="feasible",
        latency_us=latency_us,
        bound_us=int(bound) if of_latency else min(latency_us, _goal_latency_bound_us(instance)),
        gap=0.0,
        goal=instance.goal,
        profile_sha256=sha256_of(instance.profile),
        fleet_sha256=sha256_of(instance.fleet),
        solver=SolverRun(
            version=f"planner {__version__}, ortools {version('ortools')}",
            seconds=round(seconds, 3),
            seed=seed,
            method=solution.method,
        ),
        assignments=tuple(assignments),
        idle=tuple(name for name in order if name not in by_device),
        fusion=FusionCost(device=instance.fleet.aggregator, latency_us=fusion_us),
        predicted_accuracy=predict_accuracy(assignments, instance.profile),
        retention_floor=instance.retention_floor,
        goal_bound_us=solution.goal_bound_us,
    )
    value, proven = draft.value, bound if of_latency else _stated_bound(solution, draft.value)
    certificate = {"status": status_of(value, proven), "gap": gap_of(value, proven)}
    if not of_latency:
        certificate |= {"objective_value": value, "objective_bound": proven}
    return Plan.model_validate(draft.model_dump() | certificate)


def _goal_latency_bound_us(instance: Instance) -> int:
    """Return a bound on the latency [us] of any plan at the instance's floors."""
    return latency_bound_us(instance) or 0


def _stated_bound(solution: Solution, value: float) -> float:
    """Return the bound of the objective in the units of the plan's file, as safe as it was proven."""
    instance, bound = solution.instance, solution.bound
    objective = instance.goal.objective
    if objective == "accuracy":
        return max(value, round(bound, 6))
    if objective == "energy":
        if bound >= instance.energy(list(solution.by_device.values())):
            return value
        return min(value, math.floor(bound * 1000 / instance.energy_scale) / 10**6)
    return bound


def _assignment(instance: Instance, p: PlacedSubModel, device: str, send_us: int, return_us: int) -> Assignment:
    profile, units, at = instance.profile, instance.units, p.option.width_cost
    heads, groups = units.blocks(p.kept, heads=True), units.blocks(p.kept, heads=False)
    compute_us = at.time.compute_us(*kept_counts(profile, heads, groups))
    energy = p.option.device.energy_mj(compute_us)
    names = tuple(profile.classes[c] for c in p.classes)
    kept: Mapping[str, float] = {
        name: round(retention(profile, name, at.width.embed_dim, heads, groups, at.precision), 6) for name in names
    }
    return Assignment(
        device=device,
        classes=names,
        embed_dim=p.option.embed_dim,
        precision=at.precision,
        engine=None if p.option.device.engine == "onnxruntime" else p.option.device.engine,
        kept_heads=heads,
        kept_channel_groups=groups,
        send_us=send_us,
        compute_us=compute_us,
        return_us=return_us,
        memory_bytes=instance.memory_bytes(p.option, p.kept),
        storage_bytes=instance.storage_bytes(p.option, p.kept),
        energy_mj=None if energy is None else round(energy, 6),
        retention=dict(kept),
        estimated=at.time.estimated,
    )
