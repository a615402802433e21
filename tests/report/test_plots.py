"""Pictures: the numbers in each figure are the plan's, and names are shown as they are."""

import json
import math
import re
import subprocess
import sys
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from planner.report import figures
from planner.report.plots import (
    classes_plot,
    fleet_graph_plot,
    importance_plot,
    kept_plot,
    memory_plot,
    pareto_plot,
    timeline_plot,
    what_if_plot,
)
from planner.report.plots.style import literal, untitled
from planner.units import ms, percent, short, size
from tests.helpers.drawn_plan import drawn, drawn_plan, many
from tests.helpers.frames import NONE, front, what_ifs
from tests.helpers.hostile import hostile
from tests.helpers.pencil import fleet, fleet_data, profile, profile_data


def title(figure: go.Figure) -> str:
    """Return what a figure says is to be seen."""
    return str(figure.layout.meta["title"])


def trace(figure: go.Figure, name: str) -> Any:
    """Return the trace of this name."""
    return next(t for t in figure.data if t.name == name)


def seven(plan: Any, model: Any, devices: Any) -> list[go.Figure]:
    """Return every picture of a plan, and importance."""
    of_plan = [
        timeline_plot(plan, model, devices),
        kept_plot(plan, model),
        memory_plot(plan, model, devices),
        classes_plot(plan, model),
    ]
    return [*of_plan, fleet_graph_plot(plan, model, devices), importance_plot(model)]


# --- the time line


def test_bars_of_the_time_line_are_the_plans_times() -> None:
    """`far` on top: 2 + 3 + 1.5 ms, one after the other; `gateway` computes 5; fusion from 6.5 ms on."""
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
    """Its bars have a thicker edge, and what is sent and returned has a pattern."""
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
    """Its row has no bar but the fusion's."""
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
    """a on both devices, b on `far` only, where it is retained least."""
    figure = classes_plot(drawn_plan(), profile())
    (cells,) = figure.data
    assert np.allclose(cells.z, [[0.6, 0.5], [0.7, NONE]], equal_nan=True)
    assert cells.text == (["60", "50"], ["70", ""])
    assert title(figure) == "1 class on more than one device; class b keeps least, 50% on far"


def test_many_classes_go_down_the_page() -> None:
    """With 20 classes on one device each has a row of its own, and its number."""
    names = [f"c{i}" for i in range(20)]
    data = profile_data()
    data["importance"] = {key: [values[0]] * 20 for key, values in data["importance"].items()}
    for width in data["widths"]:
        width["embed_retention"] = [1.0] * 20
    model = profile(**data | {"classes": names, "recovery": []})
    first = drawn_plan().model_dump(mode="json")["assignments"][0]
    held = first | {"classes": names, "retention": {name: 0.3 + i / 100 for i, name in enumerate(names)}}
    figure = classes_plot(drawn_plan(assignments=[held], idle=["near", "far"]), model)
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
    """1500 and 1200 of 2000 bytes, the fullest first; the idle device's budget is there too."""
    figure = memory_plot(*drawn())
    assert list(trace(figure, "budget").x) == [2000 / 1024] * 3
    used = trace(figure, "in use").x
    assert list(used[:2]) == [1500 / 1024, 1200 / 1024]
    assert math.isnan(used[2])
    assert figure.layout.yaxis.ticktext[2] == "near<br>idle, 2.0 KiB"
    assert figure.layout.xaxis.title.text == "memory [KiB]"
    assert title(figure) == "gateway is the fullest: 1.5 KiB of 2.0 KiB, 75%"


def test_unlike_budgets_are_on_a_logarithmic_axis() -> None:
    """Budgets 31 times apart are in bytes, on an axis that says so and holds every bar."""
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
    """`far` hangs on `near`, which hangs on `gateway`; its messages are on its last hop."""
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
    """At most 40 rows (and the one that fuses), and every picture says what it leaves out."""
    plan, model, devices = many(num_devices, num_used)
    pictures = seven(plan, model, devices)
    times, map_of_kept, budgets, places, graph, _ = pictures
    rows = min(40, num_used)
    assert len(trace(times, "compute").x) == len(map_of_kept.data[0].z) == len(places.data[0].z) == rows
    assert trace(times, "compute").x[0] == num_used
    assert len(trace(budgets, "budget").x) <= 40
    for picture in (times, map_of_kept, places):
        assert (f"{rows} slowest of {num_used} devices" in picture.layout.meta["note"]) == (num_used > 40)
    for picture in (budgets, graph):
        assert (f"of {num_devices:,} devices are shown" in picture.layout.meta["note"]) == (num_devices > 40)
    assert all(100 < picture.layout.height < 2600 for picture in pictures)


# --- what-if and Pareto


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
    """Of 104 the 20 greatest gains and the 20 at the other end."""
    more = [(f"s{i}", "optimal", 10_000.0 + i, float(i), None) for i in range(1, 101)]
    figure = what_if_plot(what_ifs(*more))
    assert len(figure.layout.yaxis.ticktext) == 40
    assert "40 most different of 104 scenarios" in figure.layout.meta["note"]


def test_of_many_impossible_scenarios_some_are_shown() -> None:
    """Of 60 impossible and 60 possible ones, ten and the ends: the best and the worst are among them."""
    more = [(f"s{i}", "optimal", 10_000.0 + i, float(i), None) for i in range(1, 58)]
    more += [(f"n{i}", "impossible", NONE, NONE, "why") for i in range(59)]
    figure = what_if_plot(what_ifs(*more))
    assert len(trace(figure, "no plan").y) == 10
    labels = figure.layout.yaxis.ticktext
    assert (labels[0], labels[29], len(labels)) == ("+ 2 b", "without a", 40)


def test_where_today_has_no_plan_scenarios_that_have_one_say_so() -> None:
    """There is no change to be drawn; the latency is told instead."""
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
    """4, 6 and 9 ms with bounds of 4, 5 and 9; the one that is not proven is hollow."""
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


# --- names


def test_names_are_text_in_every_picture() -> None:
    """Of all that plotly takes for markup, only our own bold and line breaks are left."""
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


def test_a_name_becomes_the_text_of_itself() -> None:
    """What plotly would read as tag, entity or formula is escaped; what would turn the line is replaced."""
    assert literal("<b>&lt;$x$") == "&lt;b&gt;&amp;lt;&#36;x&#36;"
    assert literal("a\u202eb\nc") == "a\ufffdb\ufffdc"


def test_long_names_lose_their_middle() -> None:
    """18 characters are left of 200, both ends among them."""
    assert short("raspberry-pi") == "raspberry-pi"
    assert short("begin" + "x" * 190 + "final") == "beginxxxxxxx…final"
    assert len(short("y" * 200, 30)) == 30


def test_numbers_have_units() -> None:
    """Three digits or two, in the unit that people would use."""
    assert [ms(us) for us in (123_456, 6499, 420, 7)] == ["123 ms", "6.5 ms", "0.42 ms", "0.007 ms"]
    assert [size(n) for n in (900, 1536, 26 * 2**20, 3 * 2**40, NONE)] == [
        "900 bytes",
        "1.5 KiB",
        "26 MiB",
        "3,072 GiB",
        "-",
    ]
    assert [percent(share) for share in (1, 0.456, 0.0789, NONE)] == ["100%", "46%", "7.9%", "-"]


# --- elsewhere


def test_a_page_can_show_the_title_itself() -> None:
    """Without it a figure is shorter, and what it shows is the same."""
    figure = timeline_plot(*drawn())
    bare = untitled(figure)
    assert bare.layout.title.text is None
    assert bare.layout.height < figure.layout.height
    assert bare.layout.height - bare.layout.margin.t == figure.layout.height - figure.layout.margin.t
    assert bare.data == figure.data


def test_the_printed_time_line_has_the_same_bars() -> None:
    """matplotlib's bars: far's 2, 3 and 1.5 ms, the gateway's 5, and the fusion."""
    (axes,) = figures.print_timeline(drawn_plan()).axes
    bars = [(round(p.get_x(), 3), round(p.get_width(), 3)) for p in axes.patches if p.get_width()]
    assert bars == [(0, 2), (2, 3), (0, 5), (5, 1.5), (6.5, 0.5)]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["▶ far: a b", "gateway: a", "fusion on gateway"]


@pytest.mark.parametrize("module", ["pictures.times", "page"])
def test_without_plotly_one_sentence_says_what_to_install(module: str) -> None:
    """No traceback of an import: the extra is named."""
    script = (
        "import sys; sys.modules['plotly'] = None\n"
        "from planner.errors import PlannerError\n"
        f"try:\n    import planner.report.{module}\n"
        "except PlannerError as error:\n    print(error)"
    )
    result = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert result.stdout == "Pictures need plotly, which is not installed: pip install 'vit-planner[report]'.\n"
