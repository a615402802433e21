"""The assignment: which candidate (class subset, sub-model) each device gets.

Parameters: candidates i with device group g_i of n_g devices, class subset S_i, embed dim e_i.

Variables
    x_i   devices of group g_i that get candidate i        integer, 0..n_g

Constraints
    (1) sum_{i: c in S_i} x_i >= 1      each class c is served
    (2) sum_{i: g_i = g} x_i <= n_g     each device gets at most one
    (3) sum_i e_i x_i <= F              where the embed dims are limited

Objective: least sum_i e_i x_i, since the fusion costs time for every embed dim (`cover`); or,
where the time is settled, the most retention (`richest_cover`).

A time limit on the devices is not a constraint here: candidates that are too slow are left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ortools.sat.python import cp_model

from planner.solver.instance import Instance


@dataclass(frozen=True, order=True)
class Candidate:
    """A class subset (as a bit mask) on an option."""

    option: int
    mask: int

    @property
    def classes(self) -> tuple[int, ...]:
        return classes_of(self.mask)


def classes_of(mask: int) -> tuple[int, ...]:
    """Return the classes in a bit mask."""
    return tuple(c for c in range(mask.bit_length()) if mask >> c & 1)


def cover(
    instance: Instance, candidates: Sequence[Candidate], most_embed_dims: int | None, seconds: float
) -> list[Candidate] | None:
    """Return candidates, one for each used device, that serve all classes with the fewest embed dims.

    None if there is no such choice.

    Raises:
        TimeoutError: If neither was found in time.
    """
    model, x, embed_dims = _model(instance, candidates)
    if most_embed_dims is not None:
        model.add(embed_dims <= most_embed_dims)  # (3)
    model.minimize(embed_dims)
    solver = _solver()
    solver.parameters.max_time_in_seconds = max(0.01, seconds)
    status = solver.solve(model)
    if status == cp_model.INFEASIBLE:
        return None
    if status != cp_model.OPTIMAL:
        raise TimeoutError
    return _chosen(solver, x, candidates)


def richest_cover(
    instance: Instance,
    candidates: Sequence[Candidate],
    retention: Sequence[Mapping[int, int]],
    most_embed_dims: int,
) -> list[Candidate] | None:
    """Return candidates that serve all classes and keep the most of them.

    Maximises sum_c R_c + |C| min_c R_c, where R_c is what all devices together retain of class
    c: the class that has least counts as much as all of them.

    Args:
        retention: What each candidate retains of each of its classes [parts per million].
        most_embed_dims: F.
    """
    model, x, embed_dims = _model(instance, candidates)
    model.add(embed_dims <= most_embed_dims)  # (3)
    kept = [sum(r.get(c, 0) * x_i for x_i, r in zip(x, retention, strict=True)) for c in range(instance.num_classes)]
    least = model.new_int_var(0, 10**6 * sum(len(names) for names in instance.groups), "")
    for kept_c in kept:
        model.add(least <= kept_c)
    model.maximize(sum(kept) + instance.num_classes * least)
    solver = _solver()
    solver.parameters.relative_gap_limit = 1e-3
    solver.parameters.max_deterministic_time = 1.0
    if solver.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    return _chosen(solver, x, candidates)


def _model(
    instance: Instance, candidates: Sequence[Candidate]
) -> tuple[cp_model.CpModel, list[cp_model.IntVar], cp_model.LinearExprT]:
    model = cp_model.CpModel()
    groups = [instance.options[i.option].group for i in candidates]
    counts = [len(names) for names in instance.groups]
    x = [model.new_int_var(0, counts[g], "") for g in groups]
    for c in range(instance.num_classes):  # (1)
        model.add(sum(x_i for x_i, i in zip(x, candidates, strict=True) if i.mask >> c & 1) >= 1)
    for g, count in enumerate(counts):  # (2)
        model.add(sum(x_i for x_i, g_i in zip(x, groups, strict=True) if g_i == g) <= count)
    widths = [instance.options[i.option].embed_dim for i in candidates]
    return model, x, cp_model.LinearExpr.weighted_sum(x, widths)


def _solver() -> cp_model.CpSolver:
    solver = cp_model.CpSolver()
    # One worker gives the same answer every time, and with the full linear relaxation it is as
    # fast as the portfolio: without it, a set cover of 1,000 candidates took minutes.
    solver.parameters.num_workers = 1
    solver.parameters.linearization_level = 2
    return solver


def _chosen(
    solver: cp_model.CpSolver, x: Sequence[cp_model.IntVar], candidates: Sequence[Candidate]
) -> list[Candidate]:
    return [i for x_i, i in zip(x, candidates, strict=True) for _ in range(solver.value(x_i))]
