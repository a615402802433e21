"""The assignment: which candidate (class subset, sub-model) each device gets.

Parameters: candidates i with device group g_i, class subset S_i and use a_ri of each resource r
(devices, embed dims, bytes on media); group g of n_g devices; rules (k, G): each class on at
least k devices of the groups in G (one rule, k = 1 and all groups, unless the fleet must survive).

Variables
    x_i   devices of group g_i that get candidate i        integer, 0..n_g

Constraints
    (1) sum_{i: c in S_i, g_i in G} x_i >= k      for each class c and rule (k, G)
    (2) sum_{i: g_i = g} x_i <= n_g               each device gets at most one; = where it is pinned
    (3) sum_i a_ri x_i <= most_r                  for each resource r

Objective: least sum_i w_i x_i (`cover`); or, where the time is settled, the most retention
(`richest_cover`).

A time limit on the devices is not a constraint here: candidates that are too slow are left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ortools.sat.python import cp_model

from planner.arrays import Ints
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import NEVER, Instance


@dataclass(frozen=True, order=True)
class Column:
    """A class subset (as a bit mask) on an option."""

    option: int
    mask: int

    @property
    def classes(self) -> tuple[int, ...]:
        return classes_of(self.mask)


def classes_of(mask: int) -> tuple[int, ...]:
    """Return the classes in a bit mask."""
    return tuple(c for c in range(mask.bit_length()) if mask >> c & 1)


def mask_of(classes: Sequence[int]) -> int:
    """Return the bit mask of some classes."""
    return sum(1 << c for c in classes)


def cover(
    instance: Instance, candidates: Sequence[Column], weights: Sequence[int], most: Ints, clock: Clock
) -> list[Column] | None:
    """Return candidates, one for each used device, that serve all classes with the least total weight.

    None if there is no such choice.

    Args:
        weights: Of each candidate.
        most: The most that may be used of each resource, (R,).

    Raises:
        TimeoutError: If neither was found in time.
    """
    model, x = assignment_model(instance, candidates, most)
    model.minimize(cp_model.LinearExpr.weighted_sum(x, list(weights)))
    solver = relaxing_solver()
    status = clock.solve(solver, model)
    if status == cp_model.INFEASIBLE:
        return None
    if status != cp_model.OPTIMAL:
        raise TimeoutError
    return _chosen(solver, x, candidates)


def richest_cover(
    instance: Instance,
    candidates: Sequence[Column],
    retention: Sequence[Mapping[int, int]],
    most: Ints,
    clock: Clock,
) -> list[Column] | None:
    """Return a choice that retains most, summed over the devices, where the classes that have least count most.

    Args:
        retention: What each candidate keeps of each of its classes [parts per million].
        most: The most that may be used of each resource, (R,).
    """
    model, x = assignment_model(instance, candidates, most)
    kept = [sum(r.get(c, 0) * x_i for x_i, r in zip(x, retention, strict=True)) for c in range(instance.num_classes)]
    least = model.new_int_var(0, 10**6 * sum(len(group.names) for group in instance.groups), "")
    for kept_c in kept:
        model.add(least <= kept_c)
    model.maximize(sum(kept) + instance.num_classes * least)
    solver = relaxing_solver()
    status = clock.solve(solver, model, relative_gap_limit=1e-3, max_deterministic_time=1.0)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    return _chosen(solver, x, candidates)


def assignment_model(
    instance: Instance, candidates: Sequence[Column], most: Ints
) -> tuple[cp_model.CpModel, list[cp_model.IntVar]]:
    """Return constraints (1) to (3), and the variables x."""
    model = cp_model.CpModel()
    groups = [instance.options[i.option].group for i in candidates]
    x = [model.new_int_var(0, len(instance.groups[g].names), "") for g in groups]
    for c in range(instance.num_classes):  # (1)
        serving = [(x_i, g) for x_i, i, g in zip(x, candidates, groups, strict=True) if i.mask >> c & 1]
        for rule in instance.survivors:
            model.add(sum(x_i for x_i, g in serving if g in rule.groups) >= rule.least)
    for g, group in enumerate(instance.groups):  # (2)
        used = sum(x_i for x_i, g_i in zip(x, groups, strict=True) if g_i == g)
        model.add(used == len(group.names) if group.must else used <= len(group.names))
    for r, most_r in enumerate(most.tolist()):  # (3)
        if most_r < NEVER:
            uses = [int(instance.options[i.option].use[r]) for i in candidates]
            model.add(cp_model.LinearExpr.weighted_sum(x, uses) <= most_r)
    return model, x


def relaxing_solver() -> cp_model.CpSolver:
    """Return a solver that keeps the whole linear relaxation.

    With it, one worker is as fast as the portfolio: without, a cover of 1,000 candidates took minutes.
    """
    solver = cp_model.CpSolver()
    solver.parameters.linearization_level = 2
    return solver


def _chosen(solver: cp_model.CpSolver, x: Sequence[cp_model.IntVar], candidates: Sequence[Column]) -> list[Column]:
    return [i for x_i, i in zip(x, candidates, strict=True) for _ in range(solver.value(x_i))]
