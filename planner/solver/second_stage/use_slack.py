"""Second objective: where the first is settled, the highest predicted accuracy.

A device that is not the bottleneck has time to spare, and an idle one may have all of it. Whatever finishes in time
helps the fusion, whether its classes are served there or not. The first objective is never touched: its proof stands.
Where energy is limited or minimised, no unit is free, and nothing is changed.
"""

from collections.abc import Sequence

from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import Instance
from planner.solver.problem.option import PlacedSubModel
from planner.solver.second_stage.accuracy_search import AccuracySearch


def use_slack(
    instance: Instance,
    placed: Sequence[PlacedSubModel],
    clock: Clock,
    stays: Sequence[PlacedSubModel] = (),
    stretch: float = 0.0,
) -> tuple[PlacedSubModel, ...]:
    """Return a placement with the same objective whose predicted accuracy is as high as the search finds.

    The sub-models that were placed come first, in their order, then those of devices that were idle.

    Args:
        instance: Problem.
        placed: Placement of a plan.
        clock: Time for it; out of time, the rest is left as it is.
        stays: Sub-models of the plan that are left as they are.
        stretch: Share by which the latency may rise, so that idle devices can help where they share a medium.
    """
    goal = instance.goal
    if goal.objective == "energy" or goal.max_energy_mj is not None:
        return tuple(placed)
    latency_us = int((1 + stretch) * instance.fleet_latency_us(placed))
    if goal.objective == "accuracy" and goal.max_latency_us is not None:
        latency_us = max(latency_us, goal.max_latency_us)
    search = AccuracySearch(instance, placed, latency_us, stays)
    search.run(clock)
    return tuple(search.placed)
