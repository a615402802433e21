"""Bounds for goals of accuracy, against every plan."""

import numpy as np
import pytest

from planner.schema import Goal
from planner.solver.accuracy_bound import AccuracyBound
from planner.solver.problem.build import build_instance
from tests.helpers.accuracy_instances import PAIRS, pair, pair_plans
from tests.helpers.goals import floored
from tests.helpers.pencil import ACCURACY_MODEL, fleet, profile

# Losses are stated to a millionth.
ROUNDING = 1e-6


@pytest.mark.parametrize("seed", PAIRS)
def test_no_plan_is_beyond_the_bounds(seed: int) -> None:
    """Within any latency, no plan is more accurate than the bound; none that keeps a drop is faster than its bound."""
    (of, on), plans = pair(seed), pair_plans(seed)
    assert of.accuracy_model is not None
    bound = AccuracyBound(build_instance(of, on, Goal(min_retention=0.0)))
    whole, previous = 1 - of.accuracy_model.whole_error, -1.0
    for limit_us in np.quantile(plans.latency_us, np.linspace(0, 1, 12)).astype(int).tolist():
        least_loss = plans.least_loss(limit_us)
        assert least_loss is not None
        highest = bound.highest_accuracy(limit_us)
        assert whole - least_loss <= highest + 1e-9 <= whole + 2e-9
        assert highest >= previous
        previous = highest
    for drop in np.quantile(plans.losses, np.linspace(0, 0.5, 12)).tolist():
        found_us, least_us = plans.least_latency_us(drop), bound.least_latency_us(drop + ROUNDING, None)
        assert found_us is not None
        assert least_us is not None
        assert least_us <= found_us


def test_bounds_are_not_trivial() -> None:
    """At the least latency of a plan that keeps the median drop, the bound is above two thirds of it in the median."""
    shares = []
    for seed in PAIRS:
        plans = pair_plans(seed)
        drop = float(np.quantile(plans.losses, 0.1))
        found_us = plans.least_latency_us(drop)
        least_us = AccuracyBound(build_instance(*pair(seed), Goal(min_retention=0.0))).least_latency_us(drop, None)
        assert found_us is not None
        assert least_us is not None
        shares.append(least_us / found_us)
    assert np.median(shares) > 2 / 3


def test_more_confidence_takes_no_less_time() -> None:
    """The bound of a drop that must hold with confidence is no lower, and a plan may not exist at all."""
    slower = 0
    for seed in PAIRS:
        bound = AccuracyBound(build_instance(*pair(seed), Goal(min_retention=0.0)))
        drop = float(np.quantile(pair_plans(seed).losses, 0.2))
        plain, sure = bound.least_latency_us(drop, None), bound.least_latency_us(drop, 0.9)
        assert plain is not None
        assert sure is None or sure >= plain
        slower += sure is None or sure > plain
    assert slower > 10


def test_the_bounds_by_hand() -> None:
    """The pencil gateway alone, at width 8: 1200 MACs / 3 for the anchor head and 34 us for the fusion, 434 us.

    Of class a 0.1 is in the anchor head, of b 0.3, and nothing else is kept in this time.
    """
    alone = fleet(devices=[d for d in fleet().model_dump(mode="json")["devices"] if d["name"] == "gateway"], links=[])
    of = profile(accuracy_model=ACCURACY_MODEL, widths=profile().model_dump(mode="json")["widths"][:1])
    bound = AccuracyBound(build_instance(of, alone, floored()))
    assert bound.retained(433).by_device.tolist() == [[0.0, 0.0]]
    for retained in (bound.retained(434).by_device[0], bound.retained(434).union):
        assert retained == pytest.approx([0.1, 0.3], abs=0.02)
    # The whole model takes 564 + 34 us.
    for retained in (bound.retained(598).by_device[0], bound.retained(598).union):
        assert retained == pytest.approx([1.0, 1.0])
    assert bound.highest_accuracy(598) == pytest.approx(0.97)
    assert bound.least_latency_us(0.0, None) == 598
    # Nothing is retained: all of the whole model's accuracy is lost.
    assert bound.highest_accuracy(433) == pytest.approx(0.0)
    tiny = fleet(devices=[d | {"memory_budget": 1001} for d in alone.model_dump(mode="json")["devices"]], links=[])
    assert AccuracyBound(build_instance(of, tiny, floored())).least_latency_us(0.5, None) is None
