"""Assignment of columns to devices by CP-SAT; see `problem.covering` for variables and constraints.

Objective: least sum_i w_i x_i.
"""

from collections.abc import Sequence

from ortools.sat.python import cp_model

from planner.arrays import Ints
from planner.solver.problem.clock import Clock
from planner.solver.problem.column import Column
from planner.solver.problem.covering import cover_rows, group_rows, resource_rows
from planner.solver.problem.instance import Instance


def cover(
    instance: Instance, columns: Sequence[Column], weights: Sequence[int], max_use: Ints, clock: Clock
) -> list[Column] | None:
    """Return columns, one for each used device, that serve all classes with the least total weight.

    None if there is no such choice.

    Args:
        instance: Problem.
        columns: Choice.
        weights: Weight of each column.
        max_use: Limit of each resource, (R,).
        clock: Time for it.

    Raises:
        TimeoutError: If neither was found in time.
    """
    model, x = assignment_model(instance, columns, max_use)
    model.minimize(cp_model.LinearExpr.weighted_sum(x, list(weights)))
    solver = relaxing_solver()
    status = clock.solve(solver, model)
    if status == cp_model.INFEASIBLE:
        return None
    if status != cp_model.OPTIMAL:
        raise TimeoutError
    return [i for x_i, i in zip(x, columns, strict=True) for _ in range(solver.value(x_i))]


def assignment_model(
    instance: Instance, columns: Sequence[Column], max_use: Ints
) -> tuple[cp_model.CpModel, list[cp_model.IntVar]]:
    """Return constraints (1) to (3), and the variables x."""
    model = cp_model.CpModel()
    groups = [instance.options[i.option].group for i in columns]
    x = [model.new_int_var(0, len(instance.groups[g].names), "") for g in groups]
    for cover_row in cover_rows(instance.survival_rules, instance.num_classes):
        serving = (
            x_i
            for x_i, i, g in zip(x, columns, groups, strict=True)
            if i.mask >> cover_row.class_index & 1 and cover_row.counts(g)
        )
        model.add(sum(serving) >= cover_row.min_devices)
    for group_row in group_rows(instance.groups):
        used = sum(x_i for x_i, g in zip(x, groups, strict=True) if g == group_row.group)
        exactly = group_row.min_devices == group_row.max_devices
        model.add(used == group_row.max_devices if exactly else used <= group_row.max_devices)
    for resource_row in resource_rows(max_use):
        uses = [resource_row.use(instance.options[i.option]) for i in columns]
        model.add(cp_model.LinearExpr.weighted_sum(x, uses) <= resource_row.max_use)
    return model, x


def relaxing_solver() -> cp_model.CpSolver:
    """Return a solver that keeps the whole linear relaxation."""
    solver = cp_model.CpSolver()
    # With it, one worker is as fast as the portfolio: without, a cover of 1,000 columns took minutes.
    solver.parameters.linearization_level = 2
    return solver
