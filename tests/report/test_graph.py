"""The graph of a fleet: nodes, hops and paths of the pencil fleet and the demo."""

import itertools
import math

from planner.library import load_fleet, load_profile
from planner.report.graph import fleet_graph
from planner.schema import Goal
from planner.solver import SolveOptions, solve
from tests.helpers.common import DEVICES
from tests.helpers.drawn_plan import drawn, drawn_plan
from tests.helpers.pencil import fleet, fleet_data, profile


def test_nodes_say_what_each_device_does() -> None:
    """`gateway` fuses, `far` is the bottleneck, and `near`, a relay, is idle."""
    graph = fleet_graph(*drawn())
    assert list(graph) == ["gateway", "near", "far"]
    far = graph.nodes["far"]
    assert (far["kind"], far["classes"]) == ("board", ("a", "b"))
    assert (far["send_us"], far["compute_us"], far["return_us"], far["latency_us"]) == (2000, 3000, 1500, 6500)
    assert (far["memory_bytes"], far["budget_bytes"]) == (1200, 2000)
    assert far["path"] == ("gateway", "near", "far")
    assert far["return_path"] == ("far", "near", "gateway")
    assert graph.nodes["gateway"]["path"] == ("gateway",)
    near = graph.nodes["near"]
    assert (near["idle"], near["classes"], near["path"], near["compute_us"]) == (True, (), (), 0)
    for name, key in (("gateway", "is_aggregator"), ("far", "is_bottleneck"), ("near", "idle")):
        assert [n for n, node in graph.nodes(data=True) if node[key]] == [name]


def test_edges_are_the_links_and_say_what_they_carry() -> None:
    """Both hops to `far` are in use; with `far` idle, none is."""
    graph = fleet_graph(*drawn())
    assert dict(graph.edges["gateway", "near"]) == {
        "bandwidth_mbps": 8,
        "latency_ms": 1,
        "shared": False,
        "used": True,
    }
    assert graph.edges["near", "far"]["used"]
    assert not graph.has_edge("gateway", "far")
    gateway = drawn_plan().model_dump(mode="json")["assignments"][0]
    alone = fleet_graph(drawn_plan(assignments=[gateway], idle=["near", "far"]), profile(), fleet())
    assert [used for *_, used in alone.edges(data="used")] == [False, False]


def test_devices_without_a_link_use_the_default_link() -> None:
    """`far` without links is one hop of the default link from the aggregator."""
    links = fleet_data()["links"][:1]
    default = {"bandwidth_mbps": 2, "latency_ms": 9, "shared": "air"}
    graph = fleet_graph(drawn_plan(), profile(), fleet(links=links, default_link=default))
    assert dict(graph.edges["gateway", "far"]) == default | {"used": True}
    assert graph.nodes["far"]["path"] == ("gateway", "far")
    assert not graph.edges["gateway", "near"]["used"]


def test_of_two_links_the_faster_one_is_the_edge() -> None:
    """100 bytes take 1000 + 100 us on the first link and 500 + 400 us on the second."""
    links = [*fleet_data()["links"], {"between": ["near", "gateway"], "bandwidth_mbps": 2, "latency_ms": 0.5}]
    graph = fleet_graph(drawn_plan(), profile(), fleet(links=links))
    assert graph.edges["gateway", "near"]["bandwidth_mbps"] == 2


def test_the_demos_times_are_those_of_its_paths() -> None:
    """Sending takes the sum of a path's latencies plus the bits at its lowest bandwidth."""
    digits, greenhouse = load_profile("digits-vit"), load_fleet(DEVICES)
    plan = solve(digits, greenhouse, Goal(min_retention=0.1), SolveOptions(time_limit_s=2, deterministic=True))
    graph = fleet_graph(plan, digits, greenhouse)
    for a in plan.assignments:
        path = graph.nodes[a.device]["path"]
        assert (path[0], path[-1]) == ("gateway", a.device)
        hops = [graph.edges[pair] for pair in itertools.pairwise(path)]
        latency_us = sum(1000 * hop["latency_ms"] for hop in hops)
        bits_us = max((8 * digits.input_bytes / hop["bandwidth_mbps"] for hop in hops), default=0)
        assert a.send_us == math.ceil(latency_us + bits_us)
