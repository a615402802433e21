"""Integer linear program, solved by CP-SAT or by HiGHS.

A constraint may be enforced by a binary variable. CP-SAT supports that directly; for HiGHS it becomes a big-M
constraint, where M follows from the constraint's minimal activity. HiGHS computes with tolerances, so its constraints
are scaled and its solution is rounded: the caller has to check it.
"""

import datetime
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ortools.math_opt.python import mathopt
from ortools.sat.python import cp_model

# HiGHS: the largest coefficient of each constraint after scaling, and the feasibility tolerance.
_MAX_COEFFICIENT = 1000.0
_TOLERANCE = 1e-7


@dataclass(frozen=True)
class Constraint:
    """Constraint lower <= sum of coefficients x variables <= upper."""

    variables: Sequence[int]
    coefficients: Sequence[int]
    lower: int | None
    upper: int | None


@dataclass
class LinearModel:
    """Integer variables from 0 to their upper bounds, constraints, and the objective to minimise."""

    uppers: list[int] = field(default_factory=list)
    constraints: list[Constraint] = field(default_factory=list)
    objective: Sequence[int] = ()  # variables, each counted once

    def variables(self, count: int, upper: int = 1) -> list[int]:
        """Add variables and return their indices."""
        first = len(self.uppers)
        self.uppers += [upper] * count
        return list(range(first, first + count))

    def at_least(self, lower: int, variables: Sequence[int], coefficients: Sequence[int]) -> None:
        """Add a lower bound."""
        self.constraints.append(Constraint(variables, coefficients, lower, None))

    def at_most(self, upper: int, variables: Sequence[int], coefficients: Sequence[int]) -> None:
        """Add an upper bound."""
        self.constraints.append(Constraint(variables, coefficients, None, upper))


@dataclass(frozen=True)
class Solution:
    """Values of the best solution, if there is one, and a bound on the objective; `infeasible` if that is proven."""

    values: Sequence[int] | None
    bound: int
    infeasible: bool = False


# Solves a model, given a time limit [s] and a number of workers.
Backend = Callable[[LinearModel, float, int], Solution]


def cp_sat(model: LinearModel, time_limit_s: float, num_workers: int = 8) -> Solution:
    """Solve with CP-SAT."""
    cp = cp_model.CpModel()
    variables = [cp.new_int_var(0, upper, "") for upper in model.uppers]
    largest = cp_model.INT_MAX // 2
    for constraint in model.constraints:
        members = [variables[v] for v in constraint.variables]
        total = cp_model.LinearExpr.weighted_sum(members, list(constraint.coefficients))
        lower = -largest if constraint.lower is None else constraint.lower
        upper = largest if constraint.upper is None else constraint.upper
        cp.add_linear_constraint(total, lower, upper)
    cp.minimize(cp_model.LinearExpr.sum([variables[v] for v in model.objective]))
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = max(0.01, time_limit_s)
    solver.parameters.num_workers = num_workers
    # With this part of presolve, ortools 9.15 reports suboptimal solutions as optimal on some of these models
    # (google/or-tools issue 5293).
    solver.parameters.presolve_inclusion_work_limit = 0
    status = solver.solve(cp)
    if status == cp_model.MODEL_INVALID:
        raise ValueError(f"CP-SAT does not accept the model: {cp.validate()}")
    if status == cp_model.INFEASIBLE:
        return Solution(None, 0, infeasible=True)
    has_solution = status in (cp_model.OPTIMAL, cp_model.FEASIBLE)
    values = [solver.value(v) for v in variables] if has_solution else None
    return Solution(values, _bound(solver.best_objective_bound))


def highs(model: LinearModel, time_limit_s: float, num_workers: int = 1) -> Solution:
    """Solve with HiGHS through MathOpt, which runs it with a single thread whatever the number of workers."""
    mip = mathopt.Model()
    variables = [mip.add_integer_variable(lb=0, ub=upper) for upper in model.uppers]
    for constraint in model.constraints:
        scale = _MAX_COEFFICIENT / max((abs(a) for a in constraint.coefficients), default=1)
        lower = -math.inf if constraint.lower is None else scale * constraint.lower
        row = mip.add_linear_constraint(lb=lower, ub=math.inf if constraint.upper is None else scale * constraint.upper)
        for v, c in zip(constraint.variables, constraint.coefficients, strict=True):
            row.set_coefficient(variables[v], scale * c)
    mip.minimize(mathopt.fast_sum(variables[v] for v in model.objective))
    parameters = mathopt.SolveParameters(
        time_limit=datetime.timedelta(seconds=max(0.01, time_limit_s)), relative_gap_tolerance=0.0
    )
    parameters.highs.double_options["mip_feasibility_tolerance"] = _TOLERANCE
    parameters.highs.double_options["primal_feasibility_tolerance"] = _TOLERANCE
    result = mathopt.solve(mip, mathopt.SolverType.HIGHS, params=parameters)
    reason = result.termination.reason
    if reason in (mathopt.TerminationReason.INFEASIBLE, mathopt.TerminationReason.INFEASIBLE_OR_UNBOUNDED):
        # Objective and variables are nonnegative: the model cannot be unbounded.
        return Solution(None, 0, infeasible=True)
    values = None
    if result.has_primal_feasible_solution():
        values = [round(value) for value in result.variable_values(variables)]
    return Solution(values, _bound(result.termination.objective_bounds.dual_bound))


def _bound(value: float) -> int:
    """Return a bound rounded up to an integer, as the objective is one, less the solver's tolerance."""
    return max(0, math.ceil(value - 1e-3 - 1e-9 * abs(value))) if math.isfinite(value) else 0
