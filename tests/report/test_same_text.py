"""One plan reads alike in every report: the same amounts, and names whose invisible characters are escaped."""

import io
import re
from collections.abc import Callable

import pytest
from rich.console import Console

from planner.library import load_fleet, load_profile
from planner.report.latency_text import latency_text
from planner.report.notebook import plan_html
from planner.report.page import page
from planner.report.plots import fleet_graph_plot, memory_plot, timeline_plot
from planner.report.text import plan_text
from planner.report.what_if_text import next_text, pareto_text, what_if_text
from planner.schema import Fleet, Goal, Plan, Profile
from planner.solver import solve
from tests.helpers.common import DEVICES
from tests.helpers.drawn_plan import drawn_plan
from tests.helpers.frames import front, what_ifs
from tests.helpers.pencil import fleet, profile

Solved = tuple[Plan, Profile, Fleet]

# A sequence that clears the screen, and a character that reverses what follows it.
HOSTILE, ESCAPED = "x\x1b[2J\u202ey", r"x\x1b[2J\u202ey"


def printed(*renderables: object) -> str:
    """Return what a terminal of 80 columns shows."""
    text = io.StringIO()
    Console(file=text, width=80).print(*renderables)
    return text.getvalue()


def amounts(text: str) -> set[str]:
    """Return every time and size in a text."""
    return set(re.findall(r"\d[\d,.]* (?:ms|bytes?|[KMGT]iB)\b", text))


def demo() -> Solved:
    """Return the demo's plan, its profile and its fleet."""
    digits, greenhouse = load_profile("digits-vit"), load_fleet(DEVICES)
    return solve(digits, greenhouse, Goal(min_retention=0.3)), digits, greenhouse


def odd_sizes() -> Solved:
    """Return a plan whose device `far` takes 250 ms and 500 bytes."""
    gateway, far = drawn_plan().model_dump(mode="json")["assignments"]
    far |= {"compute_us": 246_500, "memory_bytes": 500}
    return drawn_plan(assignments=[gateway, far], latency_us=250_500, bound_us=250_500), profile(), fleet()


@pytest.mark.parametrize("make", [demo, odd_sizes])
def test_all_reports_show_the_same_amounts(make: Callable[[], Solved]) -> None:
    """Every time and size that the terminal shows is on the page, in a notebook and in the plots, digit for digit."""
    plan, model, devices = make()
    shown = amounts(printed(plan_text(plan, model, devices)))
    assert {f"{plan.fusion.latency_us / 1000:.2g} ms"} < shown
    assert shown <= amounts(page(plan, model, devices, without=None, fronts=()))
    assert amounts(plan_html(plan, model, devices)) <= shown
    plots = (plot(plan, model, devices) for plot in (timeline_plot, fleet_graph_plot, memory_plot))
    assert shown <= amounts("".join(str(plot.to_json()) for plot in plots))


def test_a_quarter_of_a_second_and_half_a_kilobyte() -> None:
    """They are 250 ms and 500 bytes in the terminal, in a notebook and on the page."""
    plan, model, devices = odd_sizes()
    for text in (
        printed(plan_text(plan, model, devices)),
        plan_html(plan, model, devices),
        page(plan, model, devices, without=None, fronts=()),
    ):
        assert {"250 ms", "500 bytes"} < amounts(text)
        assert not {"0 KiB", "0.5 KiB"} & amounts(text)
        assert "nan" not in text.split("<script")[0]


def test_hostile_names_are_escaped_in_every_report() -> None:
    """Names with control characters are refused in files; what else comes by is shown as escapes."""
    rows = what_ifs((f"without {HOSTILE}", "impossible", float("nan"), float("nan"), f"No plan: {HOSTILE}."))
    texts = (
        printed(latency_text(HOSTILE, profile().latency["board"])),
        printed(what_if_text(rows, HOSTILE)),
        printed(next_text(rows.assign(gain_us=rows["change_us"]), HOSTILE)),
        printed(pareto_text(front(), HOSTILE)),
    )
    for text in texts:
        assert not {"\x1b", "\u202e"} & set(text)
        assert ESCAPED in text
