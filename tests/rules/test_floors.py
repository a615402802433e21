"""Retention floors of all classes from that of a mean class."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.errors import InputError
from planner.rules.floors import accuracy_model_of, class_floors, floors_of
from planner.schema import AccuracyModel, Goal
from tests.helpers.pencil import ACCURACY_MODEL, profile

PROFILE = profile(accuracy_model=ACCURACY_MODEL)
MODEL = AccuracyModel.model_validate(ACCURACY_MODEL)
OFFSETS = st.lists(st.floats(-1.5, 1.5), min_size=1, max_size=6)
EXPONENTS = st.floats(0.2, 1.0)
STEEPNESSES = st.floats(0.2, 8.0)
FLOORS = st.floats(1e-3, 1 - 1e-6)


def model_of(offsets: list[float], steepness: float, exponent: float) -> AccuracyModel:
    """Return a model with these offsets of the classes."""
    shares = [1 / len(offsets)] * len(offsets)
    return MODEL.replace(class_offset=offsets, class_share=shares, steepness=steepness, retention_exponent=exponent)


@settings(deadline=None)
@given(offsets=OFFSETS, steepness=STEEPNESSES, floor=FLOORS)
def test_floors_in_closed_form(offsets: list[float], steepness: float, floor: float) -> None:
    """With k = 1 the odds are r / (1 - r), so a floor is odds / (1 + odds)."""
    odds = [floor / (1 - floor) * math.exp(o / (steepness + 1)) for o in offsets]
    expected = [x / (1 + x) for x in odds]
    assert class_floors(model_of(offsets, steepness, 1.0), floor).tolist() == pytest.approx(expected, rel=1e-9)


@settings(deadline=None)
@given(offsets=OFFSETS, steepness=STEEPNESSES, exponent=EXPONENTS, floor=FLOORS)
def test_odds_of_the_floors(offsets: list[float], steepness: float, exponent: float, floor: float) -> None:
    """Whatever the exponent, odds differ by exp(o / (s + 1)), and a mean class has the floor itself."""
    found = class_floors(model_of([*offsets, 0.0], steepness, exponent), floor)
    assert found[-1] == pytest.approx(floor, rel=1e-9)
    logs = exponent * np.log(found) - np.log1p(-found)
    assert (logs - logs[-1]).tolist() == pytest.approx([o / (steepness + 1) for o in [*offsets, 0.0]], abs=1e-6)


@settings(deadline=None)
@given(offsets=OFFSETS, steepness=STEEPNESSES, exponent=EXPONENTS, floors=st.tuples(FLOORS, FLOORS))
def test_floors_rise_with_the_mean_and_with_the_need(
    offsets: list[float], steepness: float, exponent: float, floors: tuple[float, float]
) -> None:
    """A higher floor of a mean class is higher for every class, and a class that loses more has a higher one."""
    low, high = (class_floors(model_of(offsets, steepness, exponent), floor) for floor in sorted(floors))
    assert (low <= high + 1e-12).all()
    order = np.argsort(offsets)
    assert (np.diff(low[order]) >= -1e-12).all()
    assert low.min() > 0
    assert high.max() <= 1


@pytest.mark.parametrize("floor", [0.0, 1.0])
def test_none_and_all_are_exact(floor: float) -> None:
    """A floor of 0 asks nothing of any class, a floor of 1 all of every class."""
    assert class_floors(model_of([1.5, 0.0, -1.5], 1.0, 0.25), floor).tolist() == [floor] * 3


def test_no_other_floors_of_the_same_odds_lose_less() -> None:
    """Moving odds from one class to another never lowers exp(o_c) odds_c^-s in all, the loss where it is small."""
    offsets, steepness, exponent = [0.4, 0.0, -0.4], 1.3, 0.5
    floors = class_floors(model_of(offsets, steepness, exponent), 0.6)
    best = floors**exponent / (1 - floors)

    def lost(odds: np.ndarray) -> float:
        return float((np.exp(offsets) * odds**-steepness).sum())

    for giver, taker in itertools.permutations(range(3), 2):
        moved = best.copy()
        moved[giver] -= 0.01
        moved[taker] += 0.01
        assert lost(moved) > lost(best)


@pytest.mark.parametrize(
    ("goal", "floor", "expected"),
    [
        # Without a floor that the solver set, the goal's, or none.
        (Goal(min_retention=0.3), None, [0.3, 0.3]),
        (Goal(), None, [0.0, 0.0]),
        # Odds of 1 times exp(+-0.2 / 2).
        (Goal(), 0.5, [1 / (1 + math.exp(-0.1)), 1 / (1 + math.exp(0.1))]),
        (Goal(min_retention=0.5), 0.5, [1 / (1 + math.exp(-0.1)), 0.5]),
    ],
)
def test_floors_of_a_goal(goal: Goal, floor: float | None, expected: list[float]) -> None:
    """The higher one counts where a goal has a floor and the solver set one."""
    assert floors_of(PROFILE, goal, floor).tolist() == pytest.approx(expected)


def test_floors_of_a_drop_need_a_model() -> None:
    """The message says what to do."""
    assert accuracy_model_of(PROFILE) == MODEL
    for ask in (lambda: accuracy_model_of(profile()), lambda: floors_of(profile(), Goal(), 0.5)):
        with pytest.raises(InputError) as caught:
            ask()
        assert str(caught.value) == (
            "profile 'pencil' has no accuracy model, so accuracies cannot be predicted with it: give `min_retention`, "
            "or profile the model with trial plans."
        )
    assert floors_of(profile(), Goal(min_retention=0.3), None).tolist() == [0.3, 0.3]
