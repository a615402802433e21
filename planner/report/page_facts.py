"""Facts about a plan on its page: key figures, notes and certificate."""

import json
from collections.abc import Iterator

from planner.report.text import floors_line
from planner.schema import Fleet, Goal, Plan, Profile, sha256_of
from planner.units import (
    OBJECTIVE_NAMES,
    format_energy_mj,
    format_number,
    format_objective,
    format_share,
    format_time_us,
    visible,
)
from planner.version import __version__


def key_figures(plan: Plan, profile: Profile, fleet: Fleet) -> Iterator[tuple[str, str]]:
    """Yield the names and values of the figures that come first on the page."""
    yield "Status", "proven optimal" if plan.status == "optimal" else "feasible, not proven optimal"
    yield "Latency of one image", format_time_us(plan.latency_us)
    at_floors = plan.retention_floor is not None
    yield (
        "No plan at its floors is faster than" if at_floors else "No plan is faster than",
        format_time_us(plan.bound_us),
    )
    if plan.goal_bound_us is not None:
        yield "No plan within the drop is faster than", format_time_us(plan.goal_bound_us)
    if plan.objective_value is not None:
        value, bound = (format_objective(plan.goal.objective, x) for x in (plan.value, plan.bound))
        yield f"Objective: {OBJECTIVE_NAMES[plan.goal.objective]}", f"{value}, bound {bound}"
    yield "Gap", format_share(plan.gap, 1)
    yield "Bottleneck", visible(plan.bottleneck.device)
    yield "Devices in use", f"{len(plan.assignments):,} of {len(fleet.members):,}"
    if plan.predicted_accuracy is not None:
        predicted = plan.predicted_accuracy
        accuracy, low, high = (format_share(x, 1) for x in (predicted.accuracy, predicted.low, predicted.high))
        yield "Predicted accuracy", f"{accuracy} ({low} to {high})"
    if profile.accuracy_model is not None:
        yield "Accuracy of the whole model", format_share(1 - profile.accuracy_model.whole_error, 1)
    # Not beside the accuracies without a word: it is none.
    yield "Importance that each class retains, at least", format_share(plan.lowest_retention)
    if plan.energy_mj is not None:
        yield "Energy of one image", format_energy_mj(plan.energy_mj)


def notes(plan: Plan) -> Iterator[str]:
    """Yield reservations about the key figures."""
    if any(a.estimated for a in plan.assignments):
        some = "All" if all(a.estimated for a in plan.assignments) else "Some"
        yield f"{some} compute times are estimated from declared MAC rates, not measured."


def status_text(plan: Plan) -> str:
    """Return what the plan's status proves, in a sentence."""
    objective = plan.goal.objective
    name = "number of devices" if objective == "devices" else OBJECTIVE_NAMES[objective]
    if plan.status == "optimal":
        text = f"The {name} meets its bound: under this goal, with this profile and fleet, no plan is better."
    else:
        text = (
            f"The {name} is within {format_share(plan.gap, 1)} of its bound: a better plan may exist, "
            "but none beyond the bound."
        )
    return text if plan.retention_floor is None else f"{text} {floors_line(plan)}"


def certificate(plan: Plan, profile: Profile, fleet: Fleet) -> Iterator[tuple[str, str]]:
    """Yield names and exact values of what was proven, by which solver, for which files."""
    yield "Status", plan.status
    # Exact numbers: the page's others are rounded.
    yield "Latency", f"{plan.latency_us:,} µs"
    yield "Bound of the latency", f"{plan.bound_us:,} µs"
    if plan.retention_floor is not None:
        yield "Retention floor of a mean class", f"{plan.retention_floor:g}"
    if plan.goal_bound_us is not None:
        yield "Bound at any floors", f"{plan.goal_bound_us:,} µs"
    if plan.objective_value is not None and plan.objective_bound is not None:
        yield f"Objective: {plan.goal.objective}", f"{plan.objective_value:g}, bound {plan.objective_bound:g}"
    yield "Gap", f"{format_number(100 * plan.gap)}%"
    yield "Solver", visible(plan.solver.version)
    yield "Time to solve", f"{plan.solver.seconds:.1f} s"
    yield "Seed", str(plan.solver.seed)
    yield "Goal", _goal_text(plan.goal)
    yield "Profile SHA-256", sha256_of(profile)
    yield "Fleet SHA-256", sha256_of(fleet)
    yield "Plan SHA-256", sha256_of(plan)
    yield "Page made by", f"planner {__version__}"


def _goal_text(goal: Goal) -> str:
    """Return objective, floor and method of a goal, and whatever else is not the default."""
    default = Goal().model_dump(mode="json")
    always = {"objective", "method", "max_accuracy_drop" if goal.min_retention is None else "min_retention"}
    fields = goal.model_dump(mode="json", exclude_none=True)
    if goal.accuracy_drop is not None:
        fields["max_accuracy_drop"] = goal.accuracy_drop
    shown = {key: value for key, value in fields.items() if key in always or value != default[key]}
    texts = {key: json.dumps(v, ensure_ascii=False) if isinstance(v, (dict, list)) else v for key, v in shown.items()}
    return visible("; ".join(f"{key.replace('_', ' ')} {value}" for key, value in texts.items()))
