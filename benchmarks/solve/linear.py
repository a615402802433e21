"""One linear model over integers, solved as it is by CP-SAT or by HiGHS.

A row may be enforced by a binary variable. CP-SAT takes that as it is; for HiGHS it becomes a big
M, which the row's own least activity gives. HiGHS computes with tolerances, so its rows are
scaled and its answer is rounded: the caller has to check it.
"""

import datetime
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ortools.math_opt.python import mathopt
from ortools.sat.python import cp_model

# HiGHS: the largest coefficient of each row after scaling, and the tolerance that it is held to.
_LARGEST = 1000.0
_TOLERANCE = 1e-7


@dataclass(frozen=True)
class Constraint:
    """lower <= sum of coefficients x variables <= upper, if `when` is 1 (None: always)."""

    variables: Sequence[int]
    coefficients: Sequence[int]
    lower: int | None
    upper: int | None
    when: int | None
    least: int


@dataclass
class LinearModel:
    """Integer variables from 0 to their upper bounds, rows, and what is to be least."""

    uppers: list[int] = field(default_factory=list)
    rows: list[Constraint] = field(default_factory=list)
    objective: Sequence[int] = ()  # variables, each counted once

    def variables(self, count: int, upper: int = 1) -> list[int]:
        """Add variables."""
        first = len(self.uppers)
        self.uppers += [upper] * count
        return list(range(first, first + count))

    def at_least(
        self,
        lower: int,
        variables: Sequence[int],
        coefficients: Sequence[int],
        when: int | None = None,
        least: int = 0,
    ) -> None:
        """Add a row; one that is enforced must never be below `least`."""
        self.rows.append(Constraint(variables, coefficients, lower, None, when, least))

    def at_most(self, upper: int, variables: Sequence[int], coefficients: Sequence[int]) -> None:
        """Add a row."""
        self.rows.append(Constraint(variables, coefficients, None, upper, None, 0))

    def equal(self, value: int, variables: Sequence[int], coefficients: Sequence[int]) -> None:
        """Add a row."""
        self.rows.append(Constraint(variables, coefficients, value, value, None, 0))


@dataclass(frozen=True)
class Solution:
    """Values of the best solution, if there is one, and a bound on the objective; infeasible: proven."""

    values: Sequence[int] | None
    bound: int
    infeasible: bool = False


# Solves within seconds, with so many workers.
Backend = Callable[[LinearModel, float, int], Solution]


def cp_sat(model: LinearModel, time_limit_s: float, num_workers: int = 8) -> Solution:
    """Solve with CP-SAT."""
    cp = cp_model.CpModel()
    variables = [cp.new_int_var(0, upper, "") for upper in model.uppers]
    largest = cp_model.INT_MAX // 2
    for row in model.rows:
        total = cp_model.LinearExpr.weighted_sum([variables[v] for v in row.variables], list(row.coefficients))
        lower = -largest if row.lower is None else row.lower
        upper = largest if row.upper is None else row.upper
        constraint = cp.add_linear_constraint(total, lower, upper)
        if row.when is not None:
            constraint.only_enforce_if(variables[row.when])
    cp.minimize(cp_model.LinearExpr.sum([variables[v] for v in model.objective]))
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = max(0.01, time_limit_s)
    solver.parameters.num_workers = num_workers
    # With this part of presolve, ortools 9.15 calls worse than optimal solutions optimal on some of
    # these models (google/or-tools issue 5293).
    solver.parameters.presolve_inclusion_work_limit = 0
    status = solver.solve(cp)
    if status == cp_model.MODEL_INVALID:
        raise ValueError(f"CP-SAT does not accept the model: {cp.validate()}")
    if status == cp_model.INFEASIBLE:
        return Solution(None, 0, infeasible=True)
    found = status in (cp_model.OPTIMAL, cp_model.FEASIBLE)
    values = [solver.value(v) for v in variables] if found else None
    return Solution(values, _bound(solver.best_objective_bound))


def highs(model: LinearModel, time_limit_s: float, num_workers: int = 1) -> Solution:
    """Solve with HiGHS through MathOpt, which has it work alone whatever the workers."""
    mip = mathopt.Model()
    variables = [mip.add_integer_variable(lb=0, ub=upper) for upper in model.uppers]
    for row in model.rows:
        scale = _LARGEST / max((abs(c) for c in row.coefficients), default=1)
        lower = -math.inf if row.lower is None else scale * row.lower
        constraint = mip.add_linear_constraint(lb=lower, ub=math.inf if row.upper is None else scale * row.upper)
        for v, c in zip(row.variables, row.coefficients, strict=True):
            constraint.set_coefficient(variables[v], scale * c)
        if row.when is not None:
            assert row.lower is not None
            big = scale * (row.lower - row.least)
            constraint.set_coefficient(variables[row.when], -big)
            constraint.lower_bound = lower - big
    mip.minimize(mathopt.fast_sum(variables[v] for v in model.objective))
    parameters = mathopt.SolveParameters(
        time_limit=datetime.timedelta(seconds=max(0.01, time_limit_s)), relative_gap_tolerance=0.0
    )
    parameters.highs.double_options["mip_feasibility_tolerance"] = _TOLERANCE
    parameters.highs.double_options["primal_feasibility_tolerance"] = _TOLERANCE
    result = mathopt.solve(mip, mathopt.SolverType.HIGHS, params=parameters)
    reason = result.termination.reason
    if reason in (mathopt.TerminationReason.INFEASIBLE, mathopt.TerminationReason.INFEASIBLE_OR_UNBOUNDED):
        # The objective is bounded by nothing below zero: then it is infeasible.
        return Solution(None, 0, infeasible=True)
    values = None
    if result.has_primal_feasible_solution():
        values = [round(value) for value in result.variable_values(variables)]
    return Solution(values, _bound(result.termination.objective_bounds.dual_bound))


def _bound(value: float) -> int:
    """Return a bound as an integer: the objective is one, and solvers are off by their tolerance."""
    return max(0, math.ceil(value - 1e-3 - 1e-9 * abs(value))) if math.isfinite(value) else 0
