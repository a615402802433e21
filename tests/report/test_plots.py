"""Plots: the numbers in each figure are the plan's, and names are shown as they are."""

import json
import math
import re
import subprocess
import sys
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from matplotlib.patches import Rectangle

from planner.report import figures
from planner.report.plots import (
    classes_plot,
    fleet_graph_plot,
    importance_plot,
    kept_plot,
    memory_plot,
    timeline_plot,
    what_if_plot,
)
from planner.report.plots.style import escape, without_title
from tests.helpers.drawn_plan import drawn, drawn_plan, many
from tests.helpers.figures import title, trace
from tests.helpers.frames import NONE, what_ifs
from tests.helpers.hostile import hostile
from tests.helpers.pencil import fleet, fleet_data, profile, profile_data


def seven(plan: Any, model: Any, devices: Any) -> list[go.Figure]:
    """Return every plot of a plan, and importance."""
    of_plan = [
        timeline_plot(plan, model, devices),
        kept_plot(plan, model),
        memory_plot(plan, model, devices),
        classes_plot(plan, model),
    ]
    return [*of_plan, fleet_graph_plot(plan, model, devices), importance_plot(model)]


# --- the time line


def test_bars_of_the_time_line_are_the_plans_times() -> None:
    """`far` on top: 2 + 3 + 1.5 ms in a row; `gateway` computes 5; fusion from 6.5 ms on."""
    figure = timeline_plot(*drawn())
    assert [label.startswith("<b>▶ far</b>") for label in figure.layout.yaxis.ticktext] == [True, False]
    for name, rows, starts, times in (
        ("send", (0,), (0,), (2,)),
        ("compute", (0, 1), (2, 0), (3, 5)),
        ("return", (0,), (5,), (1.5,)),
    ):
        bars = trace(figure, name)
        assert (tuple(bars.y), tuple(bars.base), tuple(bars.x)) == (rows, starts, times), name
    fusion = trace(figure, "fusion")
    assert (tuple(fusion.y), tuple(fusion.base), tuple(fusion.x)) == ((1,), (6.5,), (0.5,))
    assert tuple(trace(figure, "all there").x) == (6.5, 6.5)
    assert title(figure) == "far is the bottleneck: 6.5 of 7.0 ms, 46% of it computing"
    assert figure.layout.xaxis.title.text.endswith("[ms]")


def test_the_bottleneck_is_marked_by_more_than_its_colour() -> None:
    """Its bars have a thicker edge, and sending and returning have a pattern."""
    figure = timeline_plot(*drawn())
    for name, widths in (("send", [2.5]), ("compute", [2.5, 0.5]), ("return", [2.5])):
        assert list(trace(figure, name).marker.line.width) == widths
    assert [trace(figure, n).marker.pattern.shape for n in ("send", "compute", "return", "fusion")] == [
        "/",
        "",
        "\\",
        "x",
    ]


def test_an_aggregator_without_a_sub_model_still_fuses() -> None:
    """The row of the aggregator has the fusion's bar alone."""
    far = drawn_plan().model_dump(mode="json")["assignments"][1]
    figure = timeline_plot(drawn_plan(assignments=[far], idle=["gateway", "near"]), profile(), fleet())
    assert figure.layout.yaxis.ticktext[1] == "gateway<br>fusion only"
    assert tuple(trace(figure, "compute").x) == (3,)
    assert tuple(trace(figure, "fusion").x) == (0.5,)
    assert title(figure).startswith("far does it alone: 6.5 of 7.0 ms")


# --- maps


def test_the_map_of_what_is_kept_counts_heads_and_channels() -> None:
    """`far`: heads 0 and 1 of 2; channels 1 (group 1 of block 0) and 0 of 3. `gateway`: 1, 2; 2, 3."""
    figure = kept_plot(drawn_plan(), profile())
    heads, channels = figure.data
    assert heads.text == (["0", "1"], ["1", "2"])
    assert channels.text == (["1", "0"], ["2", "3"])
    assert np.allclose(heads.z, [[0, 0.5], [0.5, 1]])
    assert np.allclose(channels.z, [[1 / 3, 0], [2 / 3, 1]])
    assert figure.layout.yaxis.ticktext[0] == "<b>▶ far</b><br>embed dim 4"
    # 4 of 8 heads and 6 of 12 channels.
    assert title(figure) == "2 devices keep 50% of the heads and 50% of the channels on average"


def test_the_map_of_classes_shows_retention() -> None:
    """Class a is on both devices; b is on `far` alone, where it is retained least."""
    figure = classes_plot(drawn_plan(), profile())
    (cells,) = figure.data
    assert np.allclose(cells.z, [[0.6, 0.5], [0.7, NONE]], equal_nan=True)
    assert cells.text == (["60", "50"], ["70", ""])
    assert title(figure) == "1 class on more than one device; class b keeps least, 50% on far"


def test_many_classes_go_down_the_page() -> None:
    """With 20 classes on one device, each class has a row and its number."""
    names = [f"c{i}" for i in range(20)]
    data = profile_data()
    data["importance"] = {key: [values[0]] * 20 for key, values in data["importance"].items()}
    for width in data["widths"]:
        width["embed_retention"] = [1.0] * 20
    model = profile(**data | {"classes": names, "recovery": []})
    first = drawn_plan().model_dump(mode="json")["assignments"][0]
    serving = first | {"classes": names, "retention": {name: 0.3 + i / 100 for i, name in enumerate(names)}}
    figure = classes_plot(drawn_plan(assignments=[serving], idle=["near", "far"]), model)
    assert list(figure.layout.yaxis.ticktext) == names
    assert np.allclose(figure.data[0].z[:, 0], [0.3 + i / 100 for i in range(20)])
    assert title(figure) == "20 classes on one device; class c0 keeps least, 30% on gateway"


def test_importance_is_summed_over_each_half_block() -> None:
    """Class a: heads 0.3 + 0.1 and 0.2, channels 0.2 and 0.2; class b: 0.1 and 0.4, 0.3 and 0.2."""
    figure = importance_plot(profile())
    heads, channels = figure.data
    assert np.allclose(heads.z, [[0.4, 0.2], [0.1, 0.4]])
    assert np.allclose(channels.z, [[0.2, 0.2], [0.3, 0.2]])
    assert heads.zmax == channels.zmax == pytest.approx(0.4)
    assert title(figure).startswith("Block 1's heads matter most, 30% of a class's importance on average; class a")


# --- memory


def test_memory_is_set_against_every_budget() -> None:
    """1500 and 1200 of 2000 bytes, the fullest first, with the budget of the idle device."""
    figure = memory_plot(*drawn())
    assert list(trace(figure, "budget").x) == [2000 / 1024] * 3
    used = trace(figure, "in use").x
    assert list(used[:2]) == [1500 / 1024, 1200 / 1024]
    assert math.isnan(used[2])
    assert figure.layout.yaxis.ticktext[2] == "near<br>idle, 2.0 KiB"
    assert figure.layout.xaxis.title.text == "memory [KiB]"
    assert title(figure) == "gateway is the fullest: 1.5 KiB of 2.0 KiB, 75%"


def test_unlike_budgets_are_on_a_logarithmic_axis() -> None:
    """Budgets that differ by a factor of 31 are in bytes, on a labelled axis that holds every bar."""
    devices = fleet_data()["devices"]
    devices[1]["memory_budget"] = 62_001
    figure = memory_plot(drawn_plan(), profile(), fleet(devices=devices))
    assert figure.layout.xaxis.type == "log"
    assert "logarithmic" in figure.layout.xaxis.title.text
    assert sorted(trace(figure, "budget").x) == [2000, 2000, 62_001]
    low, high = (10**end for end in figure.layout.xaxis.range)
    assert low < 1200
    assert high > 62_001


# --- the fleet


def test_the_graph_shows_times_on_links_and_devices() -> None:
    """`far` is linked to `near`, and `near` to `gateway`; messages are shown on the last hop."""
    figure = fleet_graph_plot(*drawn())
    assert trace(figure, "send_us").text == ("→ 2.0 ms",)
    assert trace(figure, "return_us").text == ("← 1.5 ms",)
    assert trace(figure, "aggregator").text == ("  gateway<br>  compute 5.0 ms, fusion 0.5 ms",)
    assert trace(figure, "bottleneck").text == ("  <b>▶ far</b><br>  compute 3.0 ms",)
    assert trace(figure, "idle").text == ("  near<br>  idle",)
    assert [trace(figure, role).x[0] for role in ("aggregator", "idle", "bottleneck")] == [0, 1, 2]
    assert len({trace(figure, role).marker.symbol for role in ("aggregator", "idle", "bottleneck")}) == 3
    assert "gateway – near – far" in trace(figure, "send_us").hovertext[0]
    assert title(figure) == "2 of 3 devices in use; far, the slowest, spends 54% of its time on messages"


# --- many devices


@pytest.mark.parametrize(("num_devices", "num_used"), [(1, 1), (6, 3), (100, 100), (1000, 60)])
def test_of_many_devices_the_slowest_are_shown(num_devices: int, num_used: int) -> None:
    """At most 40 rows and the aggregator are shown, and every plot says what it leaves out."""
    plan, model, devices = many(num_devices, num_used)
    figures_of_plan = seven(plan, model, devices)
    times, map_of_kept, budgets, places, graph, _ = figures_of_plan
    rows = min(40, num_used)
    assert len(trace(times, "compute").x) == len(map_of_kept.data[0].z) == len(places.data[0].z) == rows
    assert trace(times, "compute").x[0] == num_used
    assert len(trace(budgets, "budget").x) <= 40
    for figure in (times, map_of_kept, places):
        assert (f"{rows} slowest of {num_used} devices" in figure.layout.meta["note"]) == (num_used > 40)
    for figure in (budgets, graph):
        assert (f"of {num_devices:,} devices are shown" in figure.layout.meta["note"]) == (num_devices > 40)
    assert all(100 < figure.layout.height < 2600 for figure in figures_of_plan)


# --- what-if and Pareto


# --- names


def test_names_are_text_in_every_plot() -> None:
    """Of plotly's markup, only our own bold and line breaks occur."""
    rows = what_ifs(("<b>x</b>", "impossible", NONE, NONE, "<i>no</i> $x$"))
    for figure in (*seven(*hostile()), what_if_plot(rows)):
        figure.update_layout(meta=None)
        own = re.compile(r"</?b>|<br>")
        for text in strings(json.loads(figure.to_json())):
            assert "<" not in own.sub("", text), text
            assert "$" not in text, text


def strings(data: Any) -> list[str]:
    """Return every string within JSON."""
    if isinstance(data, str):
        return [data]
    parts = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    return [text for part in parts for text in strings(part)]


def test_names_are_escaped() -> None:
    """Characters that plotly would interpret, and those that turn or break the line, are escaped."""
    assert escape("<b>&lt;$x$") == "&lt;b&gt;&amp;lt;&#36;x&#36;"
    assert escape("a\u202eb\nc") == r"a\u202eb\nc"


# --- elsewhere


def test_a_page_can_show_the_title_itself() -> None:
    """Without its title a figure is shorter and has the same data."""
    figure = timeline_plot(*drawn())
    bare = without_title(figure)
    assert bare.layout.title.text is None
    assert bare.layout.height < figure.layout.height
    assert bare.layout.height - bare.layout.margin.t == figure.layout.height - figure.layout.margin.t
    assert bare.data == figure.data


def test_the_printed_time_line_has_the_same_bars() -> None:
    """The bars of matplotlib: far's 2, 3 and 1.5 ms, the gateway's 5, and the fusion."""
    (axes,) = figures.print_timeline(drawn_plan()).axes
    bars = [
        (round(p.get_x(), 3), round(p.get_width(), 3))
        for p in axes.patches
        if isinstance(p, Rectangle) and p.get_width()
    ]
    assert bars == [(0, 2), (2, 3), (0, 5), (5, 1.5), (6.5, 0.5)]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["▶ far: a b", "gateway: a", "fusion on gateway"]


@pytest.mark.parametrize("module", ["plots.times", "page"])
def test_without_plotly_one_sentence_says_what_to_install(module: str) -> None:
    """A missing plotly is reported with the extra, without a traceback."""
    script = (
        "import sys; sys.modules['plotly'] = None\n"
        "from planner.errors import PlannerError\n"
        f"try:\n    import planner.report.{module}\n"
        "except PlannerError as error:\n    print(error)"
    )
    result = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert result.stdout == "Plots need plotly, which is not installed: pip install 'vit-planner[report]'.\n"
