"""The fleet as a graph: the tasks of devices in a plan, and the hops of their messages."""

import itertools

import networkx as nx

from planner.rules.links import Router
from planner.schema import Fleet, Plan, Profile


def fleet_graph(plan: Plan, profile: Profile, fleet: Fleet) -> nx.Graph:
    """Return the devices as nodes and the hops between them as edges.

    Of two links between the same devices the one that carries the input sooner is the edge.

    Nodes: kind (str or None), classes (names), memory_bytes, budget_bytes, storage_bytes, storage_budget_bytes (both
    None where the device has no budget for it), send_us, compute_us, return_us, latency_us, path (the devices that the
    input passes, from the aggregator on), return_path (those that the features pass), is_aggregator, is_bottleneck,
    idle. An idle device has no classes and no path, and its numbers are 0.

    Edges: bandwidth_mbps, latency_ms, shared (bool, or the medium's name), used (a message takes it).

    Raises:
        InputError: If a device cannot be reached from the aggregator.
    """
    graph = nx.Graph(name=fleet.name)
    used = {a.device: a for a in plan.assignments}
    router = Router(fleet)
    for member in fleet.members:
        a = used.get(member.name)
        # Inputs and features differ in size, so their fastest paths may differ too.
        path: tuple[str, ...] = ()
        back: tuple[str, ...] = ()
        if a is not None:
            path = router.path(a.device, profile.input_bytes)
            back = router.path(a.device, profile.feature_bytes_per_embed_dim * a.embed_dim)[::-1]
        graph.add_node(
            member.name,
            kind=member.kind,
            classes=() if a is None else a.classes,
            memory_bytes=0 if a is None else a.memory_bytes,
            budget_bytes=member.memory_budget,
            storage_bytes=None if member.storage_budget is None else 0 if a is None else a.storage_bytes,
            storage_budget_bytes=member.storage_budget,
            send_us=0 if a is None else a.send_us,
            compute_us=0 if a is None else a.compute_us,
            return_us=0 if a is None else a.return_us,
            latency_us=0 if a is None else a.latency_us,
            path=path,
            return_path=back,
            is_aggregator=member.name == fleet.aggregator,
            is_bottleneck=member.name == plan.bottleneck.device,
            idle=a is None,
        )
    _add_hops(graph, fleet, profile.input_bytes)
    paths = [path for _, node in graph.nodes(data=True) for path in (node["path"], node["return_path"])]
    for hop in {frozenset(pair) for path in paths for pair in itertools.pairwise(path)}:
        graph.edges[tuple(hop)]["used"] = True
    return graph


def _add_hops(graph: nx.Graph, fleet: Fleet, num_bytes: int) -> None:
    """Add every link, and the default link to devices that no link leads to."""
    for link in fleet.links:
        time_us = 1000 * link.latency_ms + 8 * num_bytes / link.bandwidth_mbps
        for a in fleet.member_names[link.between[0]]:
            for b in fleet.member_names[link.between[1]]:
                # A link may join a group of devices with one of its own.
                if a == b:
                    continue
                known = graph.edges[a, b] if graph.has_edge(a, b) else None
                if known is None or time_us < 1000 * known["latency_ms"] + 8 * num_bytes / known["bandwidth_mbps"]:
                    _add(graph, a, b, link.model_dump(exclude={"between"}))
    if fleet.default_link is not None:
        reached = nx.node_connected_component(graph, fleet.aggregator)
        for name in [name for name in graph if name not in reached]:
            _add(graph, fleet.aggregator, name, fleet.default_link.model_dump())


def _add(graph: nx.Graph, a: str, b: str, speed: dict[str, object]) -> None:
    graph.add_edge(a, b, **speed, used=False)
