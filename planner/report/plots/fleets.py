"""The fleet as a graph: a tree of devices from the aggregator, along the paths that messages take."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import networkx as nx
import plotly.graph_objects as go

from planner.report.graph import graph_of
from planner.report.plots.style import (
    BLUE,
    GREY,
    INK,
    MOST_ROWS,
    ORANGE,
    SKY,
    drawn,
    full,
    label,
    literal,
    shown_of,
    strong,
)
from planner.schema import Fleet, Plan, Profile
from planner.units import counted, ms, percent, short, size

_ROW = 46
# Room at the right for a device's name, in hops.
_NAME = 1.1
# role -> marker
_MARKERS = {
    "aggregator": {"symbol": "square", "color": ORANGE},
    "bottleneck": {"symbol": "diamond", "color": BLUE},
    "device": {"symbol": "circle", "color": SKY},
    "idle": {"symbol": "circle-open", "color": GREY},
}


@dataclass(frozen=True)
class _Place:
    """Where a device is drawn: hops from the aggregator, row from the top; and the device that it hangs on."""

    depth: int
    row: int
    parent: str | None


def fleet_graph_plot(plan: Plan, profile: Profile, fleet: Fleet) -> go.Figure:
    """Return the fleet as a tree of hops, with the times of messages on the links and of computing at the devices."""
    graph = graph_of(plan, profile, fleet)
    places = _places(graph, fleet.aggregator)
    deepest = max(place.depth for place in places.values())
    notes = []
    if len(places) < len(graph):
        notes.append(shown_of(min(len(plan.assignments), MOST_ROWS), len(graph), "slowest"))
    elif other := sum(not _in_tree(places, a, b) for a, b, used in graph.edges(data="used") if not used):
        notes.append(f"{counted(other, 'link')} without messages not shown.")
    return drawn(
        [*_lines(graph, places), *_messages(graph, places), *_nodes(graph, places, plan)],
        _title(graph, plan),
        note=" ".join(notes),
        plot_height=len(places) * _ROW + 16,
        above=50,
        xaxis={"visible": False, "range": [-0.06 * (deepest + 1), deepest + _NAME]},
        yaxis={"visible": False, "range": [len(places) - 0.4, -0.6]},
        hovermode="closest",
    )


def _places(graph: nx.Graph, aggregator: str) -> dict[str, _Place]:
    """Return the place of each device that is shown: the slowest with their relays; where few, the idle ones too."""
    nodes = graph.nodes
    used = sorted((name for name in graph if not nodes[name]["idle"]), key=lambda name: -nodes[name]["latency_us"])
    paths = [nodes[name]["path"] for name in used[:MOST_ROWS]]
    if len(graph) <= MOST_ROWS:
        known = nx.single_source_shortest_path(graph, aggregator)
        paths += [known[name] for name in graph if nodes[name]["idle"]]
    parents: dict[str, str | None] = {aggregator: None}
    children: dict[str, list[str]] = {aggregator: []}
    for a, b in (hop for path in paths for hop in itertools.pairwise(path)):
        if b not in parents:
            parents[b] = a
            children[a].append(b)
            children[b] = []
    places: dict[str, _Place] = {}
    waiting = [(aggregator, 0)]
    while waiting:
        name, depth = waiting.pop()
        places[name] = _Place(depth, len(places), parents[name])
        waiting += [(child, depth + 1) for child in reversed(children[name])]
    return places


def _in_tree(places: dict[str, _Place], a: str, b: str) -> bool:
    return places[a].parent == b or places[b].parent == a


def _lines(graph: nx.Graph, places: dict[str, _Place]) -> Iterator[Any]:
    """Yield the hops that messages take, those that none takes, and those in use beside the tree."""
    solid: list[tuple[float | None, float | None]] = []
    dotted: list[tuple[float | None, float | None]] = []
    for place in places.values():
        if place.parent is not None:
            above = places[place.parent]
            name = next(n for n, other in places.items() if other is place)
            lines = solid if graph.edges[place.parent, name]["used"] else dotted
            lines += [(above.depth, above.row), (above.depth, place.row), (place.depth, place.row), (None, None)]
    dashed: list[tuple[float | None, float | None]] = []
    for a, b, used in graph.edges(data="used"):
        if used and a in places and b in places and not _in_tree(places, a, b):
            dashed += [(places[a].depth, places[a].row), (places[b].depth, places[b].row), (None, None)]
    for points, dash, colour in ((solid, "solid", INK), (dotted, "dot", GREY), (dashed, "dash", INK)):
        if points:
            xs, ys = zip(*points, strict=True)
            line = {"color": colour, "width": 1.5, "dash": dash}
            yield go.Scatter(x=xs, y=ys, mode="lines", line=line, showlegend=False, hoverinfo="skip")


def _messages(graph: nx.Graph, places: dict[str, _Place]) -> Iterator[Any]:
    """Yield the times of the messages to (above the hop) and from (below it) each device, over its whole path."""
    names = [name for name, place in places.items() if place.parent is not None and not graph.nodes[name]["idle"]]
    for key, path, sign, position in (
        ("send_us", "path", "→", "top center"),
        ("return_us", "return_path", "←", "bottom center"),
    ):
        nodes = [graph.nodes[name] for name in names]
        yield go.Scatter(
            x=[places[name].depth - 0.5 for name in names],
            y=[places[name].row for name in names],
            mode="markers+text",
            # Unseen, it keeps the text off the line.
            marker={"size": 7, "opacity": 0},
            text=[f"{sign} {ms(node[key])}" for node in nodes],
            textposition=position,
            textfont={"size": 12},
            hovertext=[f"{key.removesuffix('_us')} {ms(node[key])} over<br>{_route(node[path])}" for node in nodes],
            hoverinfo="text",
            showlegend=False,
            name=key,
        )


def _route(path: tuple[str, ...]) -> str:
    return " – ".join(label(name) for name in path)


def _nodes(graph: nx.Graph, places: dict[str, _Place], plan: Plan) -> Iterator[Any]:
    roles: dict[str, list[str]] = {role: [] for role in _MARKERS}
    for name in places:
        roles[_role(graph.nodes[name])].append(name)
    for role, names in roles.items():
        if names:
            yield go.Scatter(
                name=role,
                x=[places[name].depth for name in names],
                y=[places[name].row for name in names],
                mode="markers+text",
                marker={"size": 15, "line": {"color": INK, "width": 1.5}, **_MARKERS[role]},
                text=[f"  {_words(name, graph.nodes[name], plan)}" for name in names],
                textposition="middle right",
                textfont={"size": 12, "color": "#5A5A5A" if role == "idle" else INK},
                hovertext=[_hover(name, graph.nodes[name]) for name in names],
                hoverinfo="text",
                cliponaxis=False,
            )


def _role(node: dict[str, Any]) -> str:
    if node["is_aggregator"]:
        return "aggregator"
    return "bottleneck" if node["is_bottleneck"] else "idle" if node["idle"] else "device"


def _words(name: str, node: dict[str, Any], plan: Plan) -> str:
    """Return a device's name and what it does, in two lines."""
    first = strong(label(name)) if node["is_bottleneck"] else label(name)
    second = "idle" if node["idle"] else f"compute {ms(node['compute_us'])}"
    if node["is_aggregator"]:
        second += f", fusion {ms(plan.fusion.latency_us)}"
    return f"{first}<br>  {second}"


def _hover(name: str, node: dict[str, Any]) -> str:
    kind = f"<br>{literal(short(node['kind'], 40))}" if node["kind"] else ""
    if node["idle"]:
        return f"{full(name)}{kind}<br>idle, budget {size(node['budget_bytes'])}"
    times = f"send {ms(node['send_us'])}, compute {ms(node['compute_us'])}, return {ms(node['return_us'])}"
    held = f"{counted(len(node['classes']), 'class')}, {size(node['memory_bytes'])} of {size(node['budget_bytes'])}"
    return f"{full(name)}{kind}<br>{times}<br>{held}"


def _title(graph: nx.Graph, plan: Plan) -> str:
    slowest = plan.bottleneck
    messages = slowest.send_us + slowest.return_us
    share = percent(messages / slowest.latency_us) if slowest.latency_us else "none"
    used = f"{len(plan.assignments):,} of {counted(len(graph), 'device')} in use"
    if len(plan.assignments) == 1:
        return f"{used}: {short(slowest.device, 30)} does it alone in {ms(plan.latency_us)}"
    where = "has the image, no message to wait for" if not messages else f"spends {share} of its time on messages"
    return f"{used}; {short(slowest.device, 30)}, the slowest, {where}"
