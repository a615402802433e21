"""What-if rows equal separate solves and brute force, whatever the executor and the order."""

import contextlib
import math
import os
import resource
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from planner.errors import InputError
from planner.rules.diff import plan_diff
from planner.schema import Goal, Plan
from planner.solver import SolveOptions, solve
from planner.whatif import (
    ChangeRequest,
    ResultCache,
    ScenarioRow,
    Today,
    axes_of,
    expand,
    frame_of,
    run,
    solve_all,
    solve_scenarios,
    today_of,
)
from planner.whatif.run import solve_scenario
from planner.workers import ProcessExecutor, connect
from tests.helpers.goals import floored
from tests.helpers.solver_instances import best_of
from tests.helpers.what_if_instances import by_hand, feasible, instance, plan_of, rows_after, rows_of, timeless

COLUMNS = [
    *("status", "latency_us", "change_us", "bound_us", "gap", "bottleneck", "devices_used", "memory_bytes"),
    *("energy_mj", "lowest_retention", "predicted_accuracy", "goal_bound_us"),
    *("classes_moved", "bytes_to_send", "reason", "seconds", "out_of_time"),
]


def todays(seed: int, **arguments: Any) -> Today:
    """Return today's plan of a small fleet, at a retention floor."""
    return today_of(*instance(seed, **arguments), floored())


# --- what a row says ---


def test_a_row_is_its_plan() -> None:
    """Every number is that of a plan for the same change by hand; moves are counted from today's plan."""
    profile, fleet = instance(2)
    today, other = todays(2), by_hand(fleet, lambda data: data["devices"][0].update(memory_budget=1_000_000))
    assert today.plan is not None
    row = rows_after(today, set=["d0.memory_budget=1000000"])[1]
    plan = solve(profile, other, floored(), SolveOptions(start=today.plan))
    moves = plan_diff(today.plan, plan, profile)
    assert (row.status, row.latency_us, row.bound_us, row.gap) == (plan.status, plan.latency_us, plan.bound_us, 0.0)
    assert row.change_us == plan.latency_us - today.plan.latency_us
    assert (row.bottleneck, row.devices_used) == (plan.bottleneck.device, len(plan.assignments))
    assert row.memory_bytes == sum(a.memory_bytes for a in plan.assignments)
    assert row.energy_mj == pytest.approx(plan.energy_mj)
    assert row.lowest_retention == plan.lowest_retention
    assert (row.classes_moved, row.bytes_to_send) == (moves.classes, moves.bytes_to_send)
    assert plan.predicted_accuracy is not None
    assert (row.predicted_accuracy, row.reason) == (plan.predicted_accuracy.accuracy, None)
    assert (row.goal_bound_us, row.objective) == (None, None)


def test_a_row_of_an_accuracy_drop_has_the_bound_for_the_drop() -> None:
    """A plan's own bound is for its floors; beside it stands that for any floors."""
    profile, fleet = instance(2)
    row = today_of(profile, fleet, Goal(max_accuracy_drop=0.05)).row
    plan = solve(profile, fleet, Goal(max_accuracy_drop=0.05))
    assert plan.goal_bound_us is not None
    assert (row.bound_us, row.goal_bound_us) == (plan.bound_us, plan.goal_bound_us)
    assert plan.goal_bound_us <= plan.latency_us == row.latency_us


def test_the_table() -> None:
    """Columns have a fixed order, today comes first, missing numbers are NaN and missing words None."""
    frame = frame_of(rows_of(*instance(2), drop=["d0"], scale=["memory=2"]))
    assert list(frame.columns) == COLUMNS
    assert list(frame.index) == ["today", "without d0", "memory x2"]
    assert frame.index.name == "scenario"
    assert frame["status"].tolist()[:2] == ["optimal", "impossible"]
    assert math.isnan(frame["latency_us"]["without d0"])
    assert frame["bottleneck"]["without d0"] is None
    assert frame["reason"].tolist() == [None, "'d0' has the image and joins the features.", None]


def test_other_objectives_have_their_own_columns() -> None:
    """When a goal has another objective than latency, its value and bound are shown."""
    frame = frame_of(rows_of(*instance(2), sweep=["objective=devices"]))
    assert list(frame.columns) == [*COLUMNS, "objective", "objective_value", "objective_bound"]
    assert frame["objective"].tolist() == [None, "devices"]
    assert frame["objective_value"]["objective devices"] == frame["devices_used"]["objective devices"]
    assert math.isnan(frame["objective_value"]["today"])


# --- what must hold ---


@pytest.mark.parametrize("seed", feasible(6))
def test_no_change_is_todays_plan(seed: int) -> None:
    """Without a change the row has today's numbers, and nothing moves."""
    today, same = rows_after(todays(seed), scale=["memory=1"])
    assert (same.change_us, same.classes_moved, same.bytes_to_send) == (0, 0, 0)
    assert same == ScenarioRow(**(vars(today) | {"scenario": "memory x1"}))


@pytest.mark.parametrize("seed", feasible(8))
def test_dropping_an_idle_device_changes_nothing(seed: int) -> None:
    """Without an idle device, latency and bound are the same and nothing moves."""
    profile, fleet = instance(seed)
    today = today_of(profile, fleet, floored(leave_idle=True))
    assert today.plan is not None
    for name in today.plan.idle:
        if name != fleet.aggregator:
            (_, row) = rows_after(today, drop=[name])
            assert (row.status, row.change_us, row.bytes_to_send) == ("optimal", 0, 0)


@pytest.mark.parametrize("seed", range(12))
def test_one_more_device_is_never_worse(seed: int) -> None:
    """With one more device, of the fleet or of a known kind, the latency does not rise and no plan is lost."""
    profile, fleet = instance(seed, num_devices=2, tightness=0.5)
    today, *rows = rows_of(profile, fleet, add_each=["d0,d1,esp32-s3"])
    for row in rows:
        assert row.status in ("optimal", today.status)
        assert (row.latency_us or math.inf) <= (today.latency_us or math.inf)


@pytest.mark.parametrize("seed", range(6))
def test_rows_agree_with_separate_solves_and_brute_force(seed: int) -> None:
    """Fleets changed by hand and solved anew have the same status, latency and bound."""
    profile, fleet = instance(seed)
    rows = {row.scenario: row for row in rows_of(profile, fleet, drop=["d2"], scale=["memory=0.5"], cross=True)}

    def lose(data: dict[str, Any]) -> None:
        data["devices"] = data["devices"][:2]

    def halve(data: dict[str, Any]) -> None:
        for device in data["devices"]:
            device["memory_budget"] //= 2

    hands = {"without d2": [lose], "memory x0.5": [halve], "without d2, memory x0.5": [lose, halve]}
    for name, changes in hands.items():
        other = fleet
        for change in changes:
            other = by_hand(other, change)
        plan, best = plan_of(profile, other), best_of(profile, other, floored())
        row = rows[name]
        if plan is None or best is None:
            assert (row.status, plan, best) == ("impossible", None, None)
        else:
            assert (row.status, row.bound_us) == (plan.status, plan.bound_us)
            assert row.latency_us == plan.latency_us == best.value


def test_a_row_depends_on_no_other() -> None:
    """Rows are the same alone, in another order and on parallel processes."""
    today = todays(2)
    flags: dict[str, Any] = {"drop": ["d1", "d2"], "scale": ["memory=0.4..2/4"], "set": ["d1.memory_budget=900"]}
    found = expand(axes_of(ChangeRequest(**flags), today.fleet), today.case)
    expected = timeless(solve_all(today, found))
    backwards = timeless(solve_all(today, found[::-1]))
    assert [backwards[0], *backwards[:0:-1]] == expected
    assert timeless([solve_all(today, [one])[1] for one in found]) == expected[1:]
    assert timeless(solve_all(today, found, ProcessExecutor(2))) == expected


def test_impossible_rows_carry_their_reason() -> None:
    """A pin to a lost device, a small memory, a drop that no plan keeps, more losses than devices: each says why."""
    profile, fleet = instance(2)
    today = today_of(profile, fleet, floored(pin={"0": ("d1",)}))
    rows = rows_after(today, drop=["d1"], scale=["memory=0.01"], sweep=["max-accuracy-drop=0.001", "survive=7"])
    assert {row.status for row in rows[1:]} == {"impossible"}
    reasons = [row.reason or "" for row in rows[1:]]
    assert reasons[0] == "class '0' is pinned to 'd1', which is lost."
    assert reasons[1].startswith("No plan: ")
    assert "Smallest change" not in reasons[1]
    assert reasons[2].startswith("No plan")
    assert "`survive=7`" in reasons[3]


def test_out_of_time_is_unknown() -> None:
    """Without any time for a plan that has to be looked for, the status is unknown."""
    profile, fleet = instance(0)
    least_ms = solve(profile, fleet, floored()).latency_us / 1000
    rows = solve_all(
        today := today_of(profile, fleet, floored(max_latency_ms=least_ms), time_limit_s=0), expand([], today.case)
    )
    assert rows[0].status == "unknown"
    assert rows[0].reason is not None
    assert "was found" in rows[0].reason
    assert "`time_limit_s`" in rows[0].reason


def test_today_may_be_impossible() -> None:
    """When today has no plan, a scenario with one has no change against today."""
    profile, fleet = instance(2)
    starved = by_hand(fleet, lambda data: [d.update(memory_budget=d["memory_budget"] // 8) for d in data["devices"]])
    today, more = rows_of(profile, starved, scale=["memory=8"])
    assert (today.status, today.latency_us) == ("impossible", None)
    assert (more.status, more.change_us, more.bytes_to_send) == ("optimal", None, None)


def test_the_plan_that_runs_today_is_given() -> None:
    """The goal of the given plan holds for all rows; a plan that is invalid for the fleet is refused."""
    profile, fleet = instance(2)
    start = solve(profile, fleet, Goal(min_retention=0.3))
    today = today_of(profile, fleet, start=start)
    assert today.goal == start.goal
    assert today.row.latency_us == start.latency_us
    with pytest.raises(InputError, match="The plan that runs today must be valid: the plan is for another fleet"):
        today_of(profile, fleet.replace(name="other"), start=start)


# --- stopped, and going on ---


class _Counted:
    """A solve that counts its calls, and swallows a Ctrl-C at one of them, as a search does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stop_at: int | None = None) -> None:
        self.calls, self._stop_at, self._solve = 0, stop_at, solve
        monkeypatch.setattr(run, "solve", self)

    def __call__(self, *arguments: Any, **options: Any) -> Plan:
        self.calls += 1
        if self.calls == self._stop_at:
            with contextlib.suppress(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
        return self._solve(*arguments, **options)


FLAGS: dict[str, Any] = {"scale": ["latency=0.5..3/6"]}


def six_scenarios(today: Today) -> list[Any]:
    """Return six scenarios."""
    return expand(axes_of(ChangeRequest(**FLAGS), today.fleet), today.case)


def test_stopped_rows_are_kept_and_the_rest_is_solved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After Ctrl-C at the third scenario there are two rows; the next run solves the others."""
    part = tmp_path / "rows.csv.part"
    whole = timeless(solve_all(today := todays(2), six_scenarios(today)))
    counted = _Counted(monkeypatch, stop_at=3)
    cache = ResultCache(part)
    today = today_of(*instance(2), floored(), cache=cache)
    with pytest.raises(KeyboardInterrupt):
        dict(solve_scenarios(today, six_scenarios(today), cache=cache))
    assert len(part.read_text().splitlines()) == 3
    # As if the power had gone while a line was written.
    part.write_text(part.read_text() + '{"key": "abc", "row": {"scen')
    counted = _Counted(monkeypatch)
    cache = ResultCache(part)
    again = today_of(*instance(2), floored(), cache=cache)
    rows = dict(solve_scenarios(again, six_scenarios(again), cache=cache))
    assert counted.calls == 3
    assert timeless([again.row, *(rows[i] for i in range(6))]) == whole
    assert len(ResultCache(part)._rows) == 5
    cache.delete_file()
    assert not part.exists()


def test_cached_rows_are_for_the_same_request_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another time limit, seed, profile or fleet finds no cached row."""
    cache = ResultCache(tmp_path / "part")
    today = todays(2)
    dict(solve_scenarios(today, six_scenarios(today), cache=cache))
    counted = _Counted(monkeypatch)
    profile, fleet = instance(2)
    others = [
        today_of(profile, fleet, floored(), time_limit_s=29),
        today_of(profile, fleet, floored(), seed=1),
        today_of(profile.replace(model="other"), fleet, floored()),
        today_of(profile, fleet.replace(name="other"), floored()),
        today,
    ]
    counted.calls = 0
    for solves, other in zip((5, 5, 5, 5, 0), others, strict=True):
        counted.calls = 0
        dict(solve_scenarios(other, six_scenarios(other), cache=ResultCache(tmp_path / "part")))
        assert counted.calls == solves


def test_a_dead_worker_loses_no_row() -> None:
    """When one of two Dask workers is killed, all rows are those of one process."""
    distributed = pytest.importorskip("distributed")
    today = todays(2)
    found = expand(axes_of(ChangeRequest(scale=["latency=0.5..3/20"]), today.fleet), today.case)
    arguments = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": ":0"}
    with (
        distributed.LocalCluster(**arguments, silence_logs=50) as local,
        connect(local.scheduler_address, None, ["ortools"]) as cluster,
    ):
        pids = list(cluster.client.run(os.getpid).values())
        rows = {}
        for i, row in solve_scenarios(today, found, cluster):
            rows[i] = row
            if len(rows) == 3:
                os.kill(pids[0], signal.SIGKILL)
    assert timeless([today.row, *(rows[i] for i in range(20))]) == timeless(solve_all(today, found))


@pytest.mark.slow
def test_a_thousand_scenarios_stay_small() -> None:
    """1,000 rows in one process take the memory of a hundred, far below 2 GB."""
    today = todays(2)
    used = []
    for steps in (100, 1000):
        found = expand(axes_of(ChangeRequest(scale=[f"latency=0.5..3/{steps}"]), today.fleet), today.case)
        assert len(solve_all(today, found)) == steps + 1
        used.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    assert used[1] < 2 * 10**9
    assert used[1] - used[0] < 50 * 10**6


def test_a_row_says_what_time_has_cut() -> None:
    """A solve that took its whole limit may come out otherwise; one that counts work does not depend on time."""
    profile, fleet = instance(2)
    slow = replace(today_of(profile, fleet, floored()), time_limit_s=0.0)
    scenario = expand(axes_of(ChangeRequest(drop=["d1"]), fleet), slow.case)[0].scenario
    assert solve_scenario(slow, scenario).out_of_time
    assert not solve_scenario(replace(slow, time_limit_s=600.0), scenario).out_of_time
    rows = []
    for _ in range(2):
        today = today_of(profile, fleet, floored(), time_limit_s=2, deterministic=True)
        rows.append(timeless(solve_all(today, expand(axes_of(ChangeRequest(drop=["d1"]), fleet), today.case))))
    assert rows[0] == rows[1]
    assert not any(row.out_of_time for row in rows[0])
