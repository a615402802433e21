"""What-if, Pareto fronts and purchases in Python: the rows of the command line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import planner
from planner.errors import InputError
from planner.report.planned import Planned
from planner.schema import Goal, Plan
from tests.helpers import pencil
from tests.helpers.goals import floored


@pytest.fixture(scope="module")
def plan() -> Planned:
    """The best plan of the pencil-and-paper fleet at a retention floor."""
    return planner.solve(pencil.profile(accuracy_model=pencil.ACCURACY_MODEL), pencil.fleet(), floored())


def test_without_a_change_there_is_today(plan: Planned) -> None:
    """The first row is the given plan."""
    rows = planner.what_if(plan)
    assert list(rows.index) == ["today"]
    today = rows.loc["today"]
    assert (today["latency_us"], today["bound_us"], today["status"]) == (plan.latency_us, plan.bound_us, plan.status)
    assert (today["change_us"], today["bytes_to_send"]) == (0, 0)


def test_a_row_is_the_plan_of_its_fleet(plan: Planned) -> None:
    """Changes are written as on the command line, and equal solving the changed fleet."""
    rows = planner.what_if(plan, set=["near.memory_budget=3KiB", "far.bandwidth_mbps=1"], scale="memory=2")
    assert list(rows.index) == ["today", "near.memory_budget 3KiB", "far.bandwidth_mbps 1", "memory x2"]
    gateway, near, far = plan.fleet.devices
    bigger = plan.fleet.replace(devices=[gateway, near.replace(memory_budget="3KiB"), far])
    assert (
        rows.loc["near.memory_budget 3KiB", "latency_us"] == planner.solve(plan.profile, bigger, plan.goal).latency_us
    )
    first, second = plan.fleet.links
    slower = plan.fleet.replace(links=[first, second.replace(bandwidth_mbps=1.0)])
    assert rows.loc["far.bandwidth_mbps 1", "latency_us"] == planner.solve(plan.profile, slower, plan.goal).latency_us
    doubled = plan.fleet.replace(devices=[d.replace(memory_budget=2 * d.memory_budget) for d in plan.fleet.devices])
    assert rows.loc["memory x2", "latency_us"] == planner.solve(plan.profile, doubled, plan.goal).latency_us


def test_changes_may_be_one_text_or_several_and_combined(plan: Planned) -> None:
    """A string is a list of one; with `cross` there is a row for each combination."""
    once = planner.what_if(plan, drop="far", sweep="max-accuracy-drop=0.05")
    assert list(once.index) == ["today", "without far", "max-accuracy-drop 0.05"]
    crossed = planner.what_if(plan, drop=("far",), sweep=["max-accuracy-drop=0.05"], cross=True)
    assert set(crossed.index) == {*once.index, "without far, max-accuracy-drop 0.05"}
    lost = planner.what_if(plan, drop_each=True)
    assert lost.loc["without gateway", "status"] == "impossible"
    assert "joins the features" in str(lost.loc["without gateway", "reason"])


def test_scenarios_come_from_a_file(plan: Planned, tmp_path: Path) -> None:
    """Scenarios may come from a file, as `planner schema scenarios` describes it."""
    path = tmp_path / "scenarios.json"
    path.write_text(json.dumps({"schema_version": 1, "scenarios": [{"name": "storm", "drop": ["far"]}]}))
    assert list(planner.what_if(plan, scenarios=str(path)).index) == ["today", "storm"]


def test_a_front_begins_and_ends_with_plans(plan: Planned) -> None:
    """Each point of the front agrees with a separate solve at its accuracy drop."""
    front = planner.pareto(plan, "accuracy")
    assert not front.empty
    for _, point in front.iterrows():
        goal = Goal(max_accuracy_drop=point["limit"])
        assert planner.solve(plan.profile, plan.fleet, goal).latency_us == point["latency_us"]


def test_what_to_buy_is_sorted_and_exact(plan: Planned) -> None:
    """The largest gain comes first, and the gain of a second board is exact."""
    best = planner.next_best(plan, kinds=["board"])
    assert list(best["gain_us"]) == sorted(best["gain_us"], reverse=True)
    gateway, near, far = plan.fleet.devices
    more = [*plan.fleet.links, plan.fleet.links[0].replace(between=("gateway", "new"))]
    larger = plan.fleet.replace(devices=[gateway, near, far, near.replace(name="new")], links=more)
    gain = plan.latency_us - planner.solve(plan.profile, larger, plan.goal).latency_us
    assert best.loc["+ board", "gain_us"] == gain


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda p: planner.what_if(p, drop="fare"), r"`drop=fare`: .*'fare'.*did you mean 'far'"),
        (lambda p: planner.what_if(p, set="far.memory=1"), r"`set=far\.memory=1`: .*did you mean 'memory_budget'"),
        (lambda p: planner.what_if(p, scale="memory=2..1/3"), r"`scale=memory=2\.\.1/3`: a range A\.\.B/N must rise"),
        (lambda p: planner.what_if(p, time_limit_s=-1), r"^`time_limit_s` must be >= 0, got -1\.$"),
        (
            lambda p: planner.what_if(Plan.model_validate(p.model_dump())),  # type: ignore[arg-type]
            r"^`plan` must be a Planned \(planner\.solve",
        ),
        (
            lambda p: planner.pareto(p, "energie"),  # type: ignore[arg-type]
            r"^`against` must be one of accuracy, memory, energy, got 'energie'; did",
        ),
        (lambda p: planner.next_best(p, "esp32s3"), r"`kinds=esp32s3`: .*did you mean 'esp32-s3'"),
    ],
)
def test_wrong_requests_are_one_sentence(plan: Planned, ask: Callable[[Planned], object], message: str) -> None:
    """The nearest valid name is suggested before anything is solved."""
    with pytest.raises(InputError, match=message):
        ask(plan)
