"""The fleet as a graph: a tree of devices from the aggregator, along the paths that messages take."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import networkx as nx
import plotly.graph_objects as go

from planner.report.graph import fleet_graph
from planner.report.plots.style import (
    BLUE,
    GREY,
    INK,
    MAX_ROWS,
    ORANGE,
    SKY,
    axis_label,
    escape,
    hover_name,
    make_figure,
    mark_bottleneck,
    omission_note,
)
from planner.schema import Fleet, Plan, Profile
from planner.units import count_noun, format_bytes, format_share, format_time_us, shorten

_ROW_PX = 46
# Width of a device's name at the right, in hops.
_NAME_WIDTH = 1.1
# role -> marker
_MARKERS = {
    "aggregator": {"symbol": "square", "color": ORANGE},
    "bottleneck": {"symbol": "diamond", "color": BLUE},
    "device": {"symbol": "circle", "color": SKY},
    "idle": {"symbol": "circle-open", "color": GREY},
}


@dataclass(frozen=True)
class _Place:
    """Position of a device: hops from the aggregator, row from the top, and the device that it is connected to."""

    depth: int
    row: int
    parent: str | None


def fleet_graph_plot(plan: Plan, profile: Profile, fleet: Fleet) -> go.Figure:
    """Return a plot of the fleet as a tree of hops, with times of messages on links and of computing at devices."""
    graph = fleet_graph(plan, profile, fleet)
    places = _places(graph, fleet.aggregator)
    deepest = max(place.depth for place in places.values())
    notes = []
    if len(places) < len(graph):
        notes.append(omission_note(min(len(plan.assignments), MAX_ROWS), len(graph), "slowest"))
    elif other := sum(not _in_tree(places, a, b) for a, b, used in graph.edges(data="used") if not used):
        notes.append(f"{count_noun(other, 'link')} without messages not shown.")
    return make_figure(
        [*_lines(graph, places), *_messages(graph, places), *_nodes(graph, places, plan)],
        _title(graph, plan),
        note=" ".join(notes),
        plot_height=len(places) * _ROW_PX + 16,
        above=50,
        xaxis={"visible": False, "range": [-0.06 * (deepest + 1), deepest + _NAME_WIDTH]},
        yaxis={"visible": False, "range": [len(places) - 0.4, -0.6]},
        hovermode="closest",
    )


def _places(graph: nx.Graph, aggregator: str) -> dict[str, _Place]:
    """Return the places of the slowest devices with their relays, and of the idle devices if all can be shown."""
    nodes = graph.nodes
    used = sorted((name for name in graph if not nodes[name]["idle"]), key=lambda name: -nodes[name]["latency_us"])
    paths = [nodes[name]["path"] for name in used[:MAX_ROWS]]
    if len(graph) <= MAX_ROWS:
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
    # Depth first, so that the rows below a device are those that it leads to.
    stack = [(aggregator, 0)]
    while stack:
        name, depth = stack.pop()
        places[name] = _Place(depth, len(places), parents[name])
        stack += [(child, depth + 1) for child in reversed(children[name])]
    return places


def _in_tree(places: dict[str, _Place], a: str, b: str) -> bool:
    return places[a].parent == b or places[b].parent == a


def _lines(graph: nx.Graph, places: dict[str, _Place]) -> Iterator[Any]:
    """Yield the hops in use (solid), the unused ones (dotted), and those in use beside the tree (dashed)."""
    solid: list[tuple[float | None, float | None]] = []
    dotted: list[tuple[float | None, float | None]] = []
    for name, place in places.items():
        if place.parent is not None:
            above = places[place.parent]
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
    for part, path, sign, position in (
        ("send", "path", "→", "top center"),
        ("return", "return_path", "←", "bottom center"),
    ):
        key = f"{part}_us"
        nodes = [graph.nodes[name] for name in names]
        yield go.Scatter(
            x=[places[name].depth - 0.5 for name in names],
            y=[places[name].row for name in names],
            mode="markers+text",
            # An invisible marker keeps the text off the line.
            marker={"size": 7, "opacity": 0},
            text=[f"{sign} {format_time_us(node[key])}" for node in nodes],
            textposition=position,
            textfont={"size": 12},
            hovertext=[f"{part} {format_time_us(node[key])} over<br>{_route(node[path])}" for node in nodes],
            hoverinfo="text",
            showlegend=False,
            name=key,
        )


def _route(path: tuple[str, ...]) -> str:
    return " – ".join(axis_label(name) for name in path)


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
                text=[f"  {_node_text(name, graph.nodes[name], plan)}" for name in names],
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


def _node_text(name: str, node: dict[str, Any], plan: Plan) -> str:
    """Return a device's name and its task, in two lines."""
    first = mark_bottleneck(axis_label(name)) if node["is_bottleneck"] else axis_label(name)
    second = "idle" if node["idle"] else f"compute {format_time_us(node['compute_us'])}"
    if node["is_aggregator"]:
        second += f", fusion {format_time_us(plan.fusion.latency_us)}"
    return f"{first}<br>  {second}"


def _hover(name: str, node: dict[str, Any]) -> str:
    kind = f"<br>{escape(shorten(node['kind'], 40))}" if node["kind"] else ""
    storage_budget = node["storage_budget_bytes"]
    if node["idle"]:
        storage = "" if storage_budget is None else f", storage {format_bytes(storage_budget)}"
        return f"{hover_name(name)}{kind}<br>idle, budget {format_bytes(node['budget_bytes'])}{storage}"
    send, compute, back = (format_time_us(node[f"{part}_us"]) for part in ("send", "compute", "return"))
    times = f"send {send}, compute {compute}, return {back}"
    used, budget = format_bytes(node["memory_bytes"]), format_bytes(node["budget_bytes"])
    load = f"{count_noun(len(node['classes']), 'class')}, {used} of {budget}"
    if storage_budget is not None:
        load += f"<br>storage {format_bytes(node['storage_bytes'])} of {format_bytes(storage_budget)}"
    return f"{hover_name(name)}{kind}<br>{times}<br>{load}"


def _title(graph: nx.Graph, plan: Plan) -> str:
    slowest = plan.bottleneck
    messages = slowest.send_us + slowest.return_us
    share = format_share(messages / slowest.latency_us) if slowest.latency_us else "none"
    used = f"{len(plan.assignments):,} of {count_noun(len(graph), 'device')} in use"
    if len(plan.assignments) == 1:
        return f"{used}: {shorten(slowest.device, 30)} does it alone in {format_time_us(plan.latency_us)}"
    where = "has the image, no message to wait for" if not messages else f"spends {share} of its time on messages"
    return f"{used}; {shorten(slowest.device, 30)}, the slowest, {where}"
