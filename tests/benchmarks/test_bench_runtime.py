"""The runtime's benchmark: whether its goals are met, by hand, and when it tells how far it is."""

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.runtime import goals
from benchmarks.runtime.endurance import Kills, Soak
from benchmarks.runtime.fan_out import FanOut
from benchmarks.runtime.progress import progress_of
from tests.helpers.rehearsals import rehearsal, step, times


def are_met(lines: str) -> list[bool]:
    """Return whether each goal of some lines is met."""
    return [line.endswith(": met.") for line in lines.splitlines() if line.startswith("Goal: ")]


def predicted(us: int, p50: float) -> dict[str, Any]:
    """Return the change of a rehearsal that gives the answer's prediction and median [us]."""
    return {"latency": step(us, times(p50, p50, p50))}


def test_the_median_decides_the_fan_out() -> None:
    """A millisecond is enough, whatever the slowest take."""
    assert are_met(goals.fan_out_goal(FanOut(256, 2000, 800, 1000, 9000, 1))) == [True]
    assert are_met(goals.fan_out_goal(FanOut(256, 2000, 800, 1001, 1002, 1))) == [False]


@pytest.mark.parametrize(
    ("us", "p50", "is_met"),
    [(2000, 2700, True), (2000, 2701, False), (10_000, 11_000, True), (10_000, 11_001, False)],
)
def test_the_demo_may_be_a_tenth_or_less_than_a_millisecond_over(us: int, p50: float, is_met: bool) -> None:
    """0.7 ms of a short plan, 10 % of a long one."""
    assert are_met(goals.demo_goal(rehearsal(**predicted(us, p50)))) == [is_met]


@pytest.mark.parametrize(("p50", "is_fast"), [(103_000, True), (103_001, False)])
def test_large_sub_models_are_at_most_three_percent_over(p50: float, is_fast: bool) -> None:
    """3 % of 100 ms; both devices have 64 of 96 MiB at their peak."""
    assert are_met(goals.tiny_goals(rehearsal(**predicted(100_000, p50)))) == [is_fast, True]


def test_one_device_over_its_memory_misses_the_goal() -> None:
    """The second device has a byte more than planned."""
    first, second = (d.model_dump() for d in rehearsal().devices)
    over = second | {"peak_bytes": second["planned_memory_bytes"] + 1}
    assert are_met(goals.tiny_goals(rehearsal(devices=[first, over], **predicted(100, 100)))) == [True, False]


def test_every_killed_device_comes_back() -> None:
    """Nothing lost, nothing late, three returns of three kills, the slowest in 2 s."""
    good = Kills(400, 3, 60, num_lost=0, worst_us=100_000, deadline_us=100_000, back_s=[0.1, 2.0, 0.2])
    assert are_met(goals.kills_goals(good)) == [True, True, True]
    assert are_met(goals.kills_goals(replace(good, num_lost=1))) == [False, True, True]
    assert are_met(goals.kills_goals(replace(good, worst_us=100_001))) == [True, False, True]
    for back_s in ([0.1, 2.1, 0.2], [0.1, 0.2]):
        assert are_met(goals.kills_goals(replace(good, back_s=back_s))) == [True, True, False]


def test_one_growing_process_misses_the_goal() -> None:
    """The one that grows most counts; one that shrinks makes up for nothing."""
    first = {"aggregator": 100 * 2**20, "pump": 50 * 2**20}
    assert goals.max_growth(first, {"aggregator": 100 * 2**20 + 7, "pump": 0}) == 7
    assert are_met(goals.soak_goal(Soak(1, 9, first, first))) == [True]
    assert are_met(goals.soak_goal(Soak(1, 9, first, first | {"pump": 51 * 2**20}))) == [False]


def test_progress_is_a_line_for_each_step_and_one_every_twenty_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    """Images 2 and 3 come soon after the first, 4 after 20 s."""
    now = 100.0
    on_step = progress_of("kills", lambda: now)
    for image, now in ((1, 100.0), (2, 110.0), (3, 119.9), (4, 120.0)):  # noqa: B007
        on_step("images", image, 4)
    on_step("minutes", 0.1, 3)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["kills: images, 1 of 4", "kills: images, 4 of 4", "kills: minutes, 0.1 of 3"]
