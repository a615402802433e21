"""Plots of scenarios and of Pareto fronts: sorted by change, bounds below plans."""

import pytest

from planner.report.plots import (
    pareto_plot,
    what_if_plot,
)
from tests.helpers.figures import title, trace
from tests.helpers.frames import NONE, front, what_ifs


def test_scenarios_are_sorted_by_their_change() -> None:
    """-2 ms first, then no change, then 2.5 ms, then the impossible one with its reason."""
    figure = what_if_plot(what_ifs())
    assert [label.replace("<br>", " ") for label in figure.layout.yaxis.ticktext] == [
        "+ 2 b",
        "without c",
        "without a",
        "without d",
    ]
    faster, slower = trace(figure, "faster"), trace(figure, "slower")
    assert (tuple(faster.y), tuple(faster.x), tuple(faster.text)) == ((0,), (-2.0,), ("-2.0",))
    assert (tuple(slower.y), tuple(slower.x), tuple(slower.text)) == ((1, 2), (0.0, 2.5), ("0", "+2.5"))
    assert trace(figure, "no plan").text[0].replace("<br>", " ").startswith("✕ impossible: d has the image")
    assert faster.marker.pattern.shape != slower.marker.pattern.shape
    assert (
        title(figure) == "Today 10.0 ms; best + 2 b, -2.0 ms; worst without a, +2.5 ms; 1 of 4 scenarios without a plan"
    )


def test_of_many_scenarios_the_ends_are_shown() -> None:
    """Of 104 scenarios, the 20 greatest gains and the 20 greatest losses are shown."""
    more = [(f"s{i}", "optimal", 10_000.0 + i, float(i), None) for i in range(1, 101)]
    figure = what_if_plot(what_ifs(*more))
    assert len(figure.layout.yaxis.ticktext) == 40
    assert "40 most different of 104 scenarios" in figure.layout.meta["note"]


def test_of_many_impossible_scenarios_some_are_shown() -> None:
    """Of 60 impossible and 60 possible ones, ten and the extremes are shown."""
    more: list[tuple[str, str, float, float, str | None]] = [
        (f"s{i}", "optimal", 10_000.0 + i, float(i), None) for i in range(1, 58)
    ]
    more += [(f"n{i}", "impossible", NONE, NONE, "why") for i in range(59)]
    figure = what_if_plot(what_ifs(*more))
    assert len(trace(figure, "no plan").y) == 10
    labels = figure.layout.yaxis.ticktext
    assert (labels[0], labels[29], len(labels)) == ("+ 2 b", "without a", 40)


def test_where_today_has_no_plan_scenarios_that_have_one_say_so() -> None:
    """Without a plan today there is no change to show, so the latency is shown."""
    rows = what_ifs().assign(change_us=NONE)
    rows.loc["today", ["status", "latency_us"]] = ["impossible", NONE]
    figure = what_if_plot(rows)
    texts = dict(zip(figure.layout.yaxis.ticktext, trace(figure, "no plan").text, strict=True))
    assert texts["+ 2 b"] == "✓ a plan, 8.0 ms"
    assert texts["without d"].startswith("✕ impossible: d has")
    assert title(figure) == "Today there is no plan; 3 of 4 scenarios would have one"


def test_nothing_possible_is_drawn_too() -> None:
    """A frame of impossible scenarios has reasons and no bars."""
    rows = what_ifs()
    figure = what_if_plot(rows[rows.index.isin(["today", "without d"])])
    assert [len(t.x) for t in figure.data if t.name in ("faster", "slower")] == [0, 0]
    assert title(figure) == "Today 10.0 ms; 1 of 1 scenario without a plan"


@pytest.mark.parametrize(
    ("against", "values", "limits"),
    [
        ("accuracy", [90, 97, 98], ("drop 10%", "drop 2%", "drop 1%")),
        ("memory", [1, 2, 4], ("× 0.5", "× 0.75", "× 1")),
        ("energy", [1.9, 2.8, 4.0], ("≤ 2", "≤ 3", "≤ 4")),
    ],
)
def test_points_lie_above_their_bounds(against: str, values: list[float], limits: tuple[str, ...]) -> None:
    """4, 6 and 9 ms with bounds of 4, 5 and 9; the point without proof is hollow."""
    figure = pareto_plot(front(against))
    plans, bounds = trace(figure, "plan"), trace(figure, "bound")
    assert plans.x == bounds.x == pytest.approx(values)
    assert (tuple(plans.y), tuple(bounds.y)) == ((4, 6, 9), (4, 5, 9))
    assert tuple(plans.text) == limits
    assert [colour == "white" for colour in plans.marker.color] == [False, True, False]
    assert title(figure).startswith("Latency against ")
    assert "from 4.0 ms with " in title(figure)
    assert figure.layout.yaxis.title.text == "latency [ms]"
    assert "[" in figure.layout.xaxis.title.text
