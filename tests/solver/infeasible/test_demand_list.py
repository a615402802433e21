"""The demands of a goal, each with the change that drops it, by hand and against the texts of the helpers."""

import itertools

import pytest

from planner.schema import Goal
from planner.solver.infeasible.demand_list import droppable_demands, without
from tests.helpers import advice
from tests.helpers.goals import floored
from tests.helpers.solver_instances import small
from tests.helpers.varied_instances import VARIED, varied

GOAL = Goal(
    pin={"a": ("pi-1", "pi-2"), "b": ("gateway",)},
    forbid={"a": ("gateway",)},
    together=(("a", "b"), ("b", "c")),
    apart=(("c", "d"),),
    leave_out=("pi-3", "pi-4"),
    survive=1,
    max_latency_ms=12.5,
    max_energy_mj=3.0,
    min_retention=0.5,
)


def dropped(goal: Goal, *texts: str) -> Goal:
    """Return a goal without the demands of these texts."""
    changes = [demand.changes for demand in droppable_demands(goal) if demand.text in texts]
    assert len(changes) == len(texts)
    return Goal.model_validate(goal.model_dump() | {"objective": "latency"} | without(goal, changes))


def test_every_demand_is_listed_by_hand() -> None:
    """Each pinned device, set of classes, device left out and limit is one demand; the floors are last."""
    assert [(demand.key, demand.text) for demand in droppable_demands(GOAL)] == [
        ("pin", "`pin=a=pi-1`"),
        ("pin", "`pin=a=pi-2`"),
        ("pin", "`pin=b=gateway`"),
        ("forbid", "`forbid=a=gateway`"),
        ("together", "`together=a,b`"),
        ("together", "`together=b,c`"),
        ("apart", "`apart=c,d`"),
        ("leave_out", "`leave_out=pi-3`"),
        ("leave_out", "`leave_out=pi-4`"),
        ("survive", "`survive=1`"),
        ("max_latency_ms", "`max_latency_ms=12.5`"),
        ("max_energy_mj", "`max_energy_mj=3`"),
        ("floors", "the retention floors"),
    ]


def test_a_goal_without_demands_has_floors() -> None:
    """The floors are the only demand that every goal has."""
    assert [demand.text for demand in droppable_demands(floored())] == ["the retention floors"]


@pytest.mark.parametrize("num_dropped", [1, 2, 3])
def test_dropped_demands_are_gone_and_others_stay(num_dropped: int) -> None:
    """Whatever is dropped, the list of the goal without it is the list without its texts; floors become 0."""
    texts = [demand.text for demand in droppable_demands(GOAL)]
    for gone in itertools.combinations(texts, num_dropped):
        goal = dropped(GOAL, *gone)
        expected = [text for text in texts if text not in gone]
        if advice.FLOORS in gone:
            assert goal.min_retention == 0
            expected.append(advice.FLOORS)
        else:
            assert goal.min_retention == GOAL.min_retention
        assert [demand.text for demand in droppable_demands(goal)] == expected


def test_dropping_everything_leaves_nothing() -> None:
    """Without all its demands, a goal has none but floors of 0."""
    goal = dropped(GOAL, *(demand.text for demand in droppable_demands(GOAL)))
    assert [demand.text for demand in droppable_demands(goal)] == ["the retention floors"]
    assert (goal.min_retention, goal.objective) == (0.0, "latency")


def test_texts_are_those_that_the_other_tests_parse() -> None:
    """For random goals, texts and reduced goals equal those of the helpers, which share no code with the planner."""
    goals = [varied(seed)[2] for seed in VARIED[:60]] + [small(seed)[2] for seed in range(3)]
    for goal in goals:
        texts = [demand.text for demand in droppable_demands(goal)]
        assert texts == advice.demands(goal)
        for text in texts:
            assert dropped(goal, text) == advice.without(goal, text)
