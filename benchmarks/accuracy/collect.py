"""Results of a subject, collected from plans, times and outcomes."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from benchmarks.accuracy import fleets
from benchmarks.accuracy.execution import Outcome
from benchmarks.accuracy.plans import Case, PlannedCase, shapes_of
from benchmarks.accuracy.prepared_subject import PreparedSubject
from benchmarks.accuracy.results import Cell, Costs, Study, WholeModel
from benchmarks.accuracy.timing import shape_key
from planner.network import counts
from planner.network.vit import Shape
from planner.schema import Assignment, Plan

_MULTIPLE = 8
# ED-ViT's claim is for 2/12 of every width.
RATIO = (2, 12)


def paper_shape(whole: Shape) -> Shape:
    """Return a sub-model at 2/12 of every width, in whole heads and multiples of 8, at least one of each."""
    numerator, denominator = RATIO

    def narrowed(size: int, multiple: int) -> int:
        return max(multiple, round(size * numerator / denominator / multiple) * multiple)

    return replace(
        whole,
        embed_dim=narrowed(whole.embed_dim, max(_MULTIPLE, whole.head_dim)),
        num_heads=tuple(narrowed(h, 1) for h in whole.num_heads),
        hidden_dim=tuple(narrowed(c, _MULTIPLE) for c in whole.hidden_dim),
    )


def collect_study(
    prepared: PreparedSubject,
    whole: dict[str, Any],
    times: dict[str, float],
    plans: Mapping[Case, PlannedCase],
    outcomes: dict[Case, Outcome],
) -> Study:
    """Return the results of one subject.

    Args:
        prepared: The subject.
        whole: The whole model's accuracies, as `execution.measure_whole` returns them.
        times: Measured time [us] of each shape, by its key.
        plans: Each case's plan, or the reason why there is none.
        outcomes: Accuracies of the cases that were executed.
    """
    cells = {case: _cell(prepared, p, times, outcomes.get(case)) for case, p in plans.items()}
    per_class = "all" if prepared.budget.per_class is None else f"{prepared.budget.per_class} of each class's"
    budget = f"{prepared.budget.epochs} times {per_class} training images"
    return Study(prepared.subject, budget, _whole_model(prepared, whole, times), cells)


def _whole_model(prepared: PreparedSubject, measured: dict[str, Any], times: dict[str, float]) -> WholeModel:
    shape, training = prepared.whole, prepared.card.training
    size, small = counts.exact(shape), counts.exact(paper_shape(shape))
    assert training is not None
    description = (
        f"{shape.depth} blocks, width {shape.embed_dim}, {shape.num_heads[0]} heads, {shape.num_tokens} tokens"
    )
    trained = f"{training.epochs} epochs, learning rate {training.learning_rate:g}, batches of {training.batch_size}"
    return WholeModel(
        accuracy=measured["accuracy"],
        by_class=tuple(measured["by_class"]),
        training=trained,
        size=description,
        params=size.params,
        macs=size.macs,
        predicted_us=prepared.whole_us,
        measured_us=times[shape_key(shape)],
        small_params=size.params / small.params,
        small_macs=size.macs / small.macs,
        small_us=times[shape_key(paper_shape(shape))],
    )


def _cell(prepared: PreparedSubject, planned: PlannedCase, times: dict[str, float], outcome: Outcome | None) -> Cell:
    if planned.plan is None:
        return Cell(reason=planned.reason)
    return Cell("", _costs(prepared, planned.plan, times), outcome)


def _costs(prepared: PreparedSubject, plan: Plan, times: dict[str, float]) -> Costs:
    shapes, whole = shapes_of(prepared, plan), counts.exact(prepared.whole)
    sizes = [counts.exact(shape) for shape in shapes]
    measured = [times[shape_key(s)] * _slowdown(a) for s, a in zip(shapes, plan.assignments, strict=True)]
    params, macs = [c.params / whole.params for c in sizes], [c.macs / whole.macs for c in sizes]
    return Costs(
        predicted_us=plan.latency_us,
        measured_us=max(measured) + plan.fusion.latency_us,
        memory_bytes=max(a.memory_bytes for a in plan.assignments) - fleets.OVERHEAD_BYTES,
        params=(max(params), sum(params)),
        macs=(max(macs), sum(macs)),
        ratios=tuple(a.compute_us / us for a, us in zip(plan.assignments, measured, strict=True)),
    )


def _slowdown(a: Assignment) -> int:
    """Return the factor by which an assignment's device is slower than this machine."""
    return fleets.SLOWDOWN[a.device.rpartition("-")[0] or a.device]
