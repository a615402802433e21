"""From plans, times and outcomes to the results that the page is written from."""

from dataclasses import replace

from benchmarks.accuracy import fleets
from benchmarks.accuracy.bench import Bench
from benchmarks.accuracy.execution import Outcome
from benchmarks.accuracy.plans import Case, Planned, shapes_of
from benchmarks.accuracy.results import Cell, Costs, Study, WholeModel
from benchmarks.accuracy.timing import shape_key
from planner.network import counts
from planner.network.vit import Shape
from planner.schema import Assignment, Plan

_MULTIPLE = 8
# ED-ViT's claim is of 2/12 of every width.
RATIO = (2, 12)


def paper_shape(whole: Shape) -> Shape:
    """Return a sub-model at 2/12 of every width, in whole heads and multiples of 8, at least one of each."""
    part, of = RATIO

    def narrowed(size: int, multiple: int) -> int:
        return max(multiple, round(size * part / of / multiple) * multiple)

    return replace(
        whole,
        embed_dim=narrowed(whole.embed_dim, max(_MULTIPLE, whole.head_dim)),
        num_heads=tuple(narrowed(h, 1) for h in whole.num_heads),
        hidden_dim=tuple(narrowed(c, _MULTIPLE) for c in whole.hidden_dim),
    )


def study(
    bench: Bench,
    whole: dict[str, float],
    times: dict[str, float],
    plans: dict[Case, Planned],
    outcomes: dict[Case, Outcome],
) -> Study:
    """Return one subject's results."""
    cells = {case: _cell(bench, p, times, outcomes.get(case)) for case, p in plans.items()}
    per_class = "all" if bench.budget.per_class is None else f"{bench.budget.per_class} of each class's"
    budget = f"{bench.budget.epochs} times {per_class} training images"
    return Study(bench.subject, budget, _whole(bench, whole, times), cells)


def _whole(bench: Bench, measured: dict[str, float], times: dict[str, float]) -> WholeModel:
    shape, training = bench.whole, bench.card.training
    size, small = counts.exact(shape), counts.exact(paper_shape(shape))
    assert training is not None
    said = f"{shape.depth} blocks, width {shape.embed_dim}, {shape.num_heads[0]} heads, {shape.num_tokens} tokens"
    trained = f"{training.epochs} epochs, learning rate {training.learning_rate:g}, batches of {training.batch_size}"
    return WholeModel(
        accuracy=measured["accuracy"],
        by_class=tuple(measured["by_class"]),
        training=trained,
        size=said,
        params=size.params,
        macs=size.macs,
        predicted_us=bench.whole_us,
        measured_us=times[shape_key(shape)],
        small_params=size.params / small.params,
        small_macs=size.macs / small.macs,
        small_us=times[shape_key(paper_shape(shape))],
    )


def _cell(bench: Bench, planned: Planned, times: dict[str, float], outcome: Outcome | None) -> Cell:
    if planned.plan is None:
        return Cell(reason=planned.reason)
    return Cell("", _costs(bench, planned.plan, times), outcome)


def _costs(bench: Bench, plan: Plan, times: dict[str, float]) -> Costs:
    shapes, whole = shapes_of(bench, plan), counts.exact(bench.whole)
    sizes = [counts.exact(shape) for shape in shapes]
    measured = [times[shape_key(s)] * _slower(a) for s, a in zip(shapes, plan.assignments, strict=True)]
    params, macs = [c.params / whole.params for c in sizes], [c.macs / whole.macs for c in sizes]
    return Costs(
        predicted_us=plan.latency_us,
        measured_us=max(measured) + plan.fusion.latency_us,
        memory_bytes=max(a.memory_bytes for a in plan.assignments) - fleets.OVERHEAD_BYTES,
        params=(max(params), sum(params)),
        macs=(max(macs), sum(macs)),
        ratios=tuple(a.compute_us / us for a, us in zip(plan.assignments, measured, strict=True)),
    )


def _slower(a: Assignment) -> int:
    """Return how many times slower than this machine an assignment's device is."""
    return fleets.SLOWER[a.device.rpartition("-")[0] or a.device]
