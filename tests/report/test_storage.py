"""Storage beside memory in every report, where any device has a budget for it, and the method of the solver."""

import io
import math

import pytest
from rich.console import Console

from planner.report.frames import devices_frame
from planner.report.graph import fleet_graph
from planner.report.notebook import plan_html
from planner.report.page_tables import devices_table, memory_table
from planner.report.plan_frames import memory_frame
from planner.report.plots import memory_plot
from planner.report.text import headline, plan_text
from planner.schema import Fleet, Plan
from tests.helpers.drawn_plan import drawn_plan
from tests.helpers.figures import title
from tests.helpers.pencil import fleet, fleet_data, profile


def stored() -> tuple[Plan, Fleet]:
    """Return the drawn plan, in which `far` holds 700 of 4,000 bytes in flash and `near`, which is idle, has 3,000."""
    gateway, near, far = fleet_data()["devices"]
    flash = {"engine": "c", "storage_overhead": 0}
    plan = drawn_plan().model_dump()
    plan["assignments"][1]["storage_bytes"] = 700
    on = fleet(devices=[gateway, near | flash | {"storage_budget": 3000}, far | flash | {"storage_budget": 4000}])
    return Plan.model_validate(plan), on


def printed(plan: Plan, on: Fleet) -> list[str]:
    """Return the lines of a plan on a terminal of 80 columns."""
    file = io.StringIO()
    Console(file=file, width=80).print(plan_text(plan, profile(), on))
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    return [" ".join(line.split()) for line in lines]


def test_a_device_with_storage_has_a_second_line() -> None:
    """Used ones and idle ones; the gateway has none."""
    lines = printed(*stored())
    assert any("memory" in line and "device" not in line for line in lines)
    assert any("storage" in line and "device" in line for line in lines)
    far = next(i for i, line in enumerate(lines) if "│ far" in line)
    assert "1.2 KiB / 2.0 KiB" in lines[far]
    assert "│ 700 bytes / 3.9 KiB │" in lines[far + 1]
    near = next(i for i, line in enumerate(lines) if "│ near" in line)
    assert "│ - / 2.9 KiB │" in lines[near + 1]
    gateway = next(i for i, line in enumerate(lines) if "│ gateway" in line)
    assert "KiB" not in lines[gateway + 1] or "│ far" in lines[gateway + 1]


def test_without_a_budget_there_is_no_word_of_storage() -> None:
    """Tables stay as they are."""
    assert not any("storage" in line for line in printed(drawn_plan(), fleet()))
    assert "storage" not in plan_html(drawn_plan(), profile(), fleet())
    for table in (devices_table(drawn_plan(), profile(), fleet()), memory_table(drawn_plan(), fleet())):
        assert not any("storage" in name for name in table.columns)


def test_frames_have_storage_and_its_budget() -> None:
    """Missing where a device has none; an idle device has a budget alone."""
    plan, on = stored()
    for frame in (devices_frame(plan, profile(), on), memory_frame(plan, on)):
        assert frame.loc["far", ["storage_bytes", "storage_budget_bytes"]].tolist() == [700, 4000]
        assert frame["storage_bytes"].isna().to_dict() == {"gateway": True, "near": True, "far": False}
        assert frame.loc["near", "storage_budget_bytes"] == 3000
        assert frame.loc["gateway", ["storage_bytes", "storage_budget_bytes"]].isna().all()
    nodes = fleet_graph(plan, profile(), on).nodes
    assert [(nodes[n]["storage_bytes"], nodes[n]["storage_budget_bytes"]) for n in ("gateway", "near", "far")] == [
        (None, None),
        (0, 3000),
        (700, 4000),
    ]


def test_the_notebook_and_the_page_have_columns_for_it() -> None:
    """A dash where there is nothing."""
    plan, on = stored()
    html = plan_html(plan, profile(), on)
    assert "storage / budget" in html
    assert "700 bytes / 3.9 KiB" in html
    for table in (devices_table(plan, profile(), on), memory_table(plan, on)):
        at = table.columns.index("storage")
        cells = {row[0].split()[0]: row[at : at + 2] for row in table.rows}
        assert cells == {"gateway": ("-", "-"), "far": ("700 bytes", "3.9 KiB"), "near": ("-", "2.9 KiB")}


@pytest.mark.parametrize(
    ("method", "goal", "shown"),
    [
        ("large", "exact", "(large, 7.5 s)"),
        ("exact", "exact", "(exact, 7.5 s)"),
        (None, "exact", "(7.5 s)"),
        ("greedy", "greedy", "(greedy, 7.5 s)"),
        (None, "greedy", "(greedy, 7.5 s)"),
    ],
)
def test_the_headline_names_the_method_that_found_the_plan(method: str | None, goal: str, shown: str) -> None:
    """An older plan of the exact method does not say whether it was the large one."""
    run = {"version": "paper", "seconds": 7.5, "seed": 0} | ({} if method is None else {"method": method})
    assert headline(drawn_plan(solver=run, goal={"min_retention": 0.5, "method": goal})).endswith(shown)


def test_storage_is_shown_beneath_memory() -> None:
    """Each budget in its half of a row, in KiB; where there is none, there is no bar. `near` is idle."""
    plan, on = stored()
    figure = memory_plot(plan, profile(), on)
    bars = {trace.name: trace for trace in figure.data}
    assert list(bars) == ["memory budget", "memory in use", "storage budget", "storage in use"]
    num_bytes = {
        "memory budget": [2000, 2000, 2000],
        "memory in use": [1500, 1200, math.nan],
        "storage budget": [math.nan, 4000, 3000],
        "storage in use": [math.nan, 700, math.nan],
    }
    for name, expected in num_bytes.items():
        assert [1024 * x for x in bars[name].x] == pytest.approx(expected, nan_ok=True)
    halves = [(y - bar.width / 2, y + bar.width / 2) for bar in figure.data[::2] for y in bar.y[:1]]
    assert -0.5 < halves[0][0] < halves[0][1] < halves[1][0] < halves[1][1] < 0.5
    assert figure.layout.xaxis.title.text == "memory and storage [KiB]"
    assert figure.layout.yaxis.ticktext[1:] == (
        "<b>\u25b6 far</b><br>60% of 2.0 KiB<br>18% of 3.9 KiB",
        "near<br>idle, 2.0 KiB and 2.9 KiB",
    )
    assert title(figure) == "gateway is the fullest: 1.5 KiB of 2.0 KiB, 75%"


def test_the_fullest_is_where_either_budget_is_fuller() -> None:
    """3,900 of 4,000 bytes of flash are more than 1,500 of 2,000 of RAM; then the title speaks of storage."""
    plan, on = stored()
    fuller = plan.model_dump()
    fuller["assignments"][1]["storage_bytes"] = 3900
    figure = memory_plot(Plan.model_validate(fuller), profile(), on)
    assert list(memory_frame(Plan.model_validate(fuller), on).index) == ["far", "gateway", "near"]
    assert title(figure) == "far is the fullest: 3.8 KiB of 3.9 KiB of storage, 98%"
    assert "3.8 KiB of 3.9 KiB of storage in use, 98%" in figure.data[0].hovertext[0]


def test_budgets_of_both_kinds_decide_the_axis() -> None:
    """A flash 31 times as large as the smallest RAM is shown on a logarithmic axis."""
    plan, on = stored()
    devices = on.model_dump(mode="json")["devices"]
    devices[2]["storage_budget"] = 62_001
    figure = memory_plot(plan, profile(), on.replace(devices=devices))
    assert figure.layout.xaxis.type == "log"
    low, high = (10**end for end in figure.layout.xaxis.range)
    assert low < 700
    assert high > 62_001
