"""Transfer times between the aggregator and the devices: routes, and shared media.

A message takes the path that is fastest for it alone. A shared link is one medium: messages pass it one after another,
all inputs first, and later all features. Each device is planned as the last in the queue, so that the order does not
matter: its message waits for those of all other used devices that take the same medium.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import networkx as nx

from planner.errors import InputError, quoted
from planner.rules.fastest_paths import MAX_HOPS, Hop, fastest_paths
from planner.schema import Fleet


@dataclass(frozen=True)
class Transfer:
    """Message between the aggregator and one device."""

    num_bytes: int
    alone_us: Fraction  # without any other message on the path
    # Of it, until the first byte arrives; the rest grows with the bytes.
    latency_us: Fraction = field(default=Fraction(0), compare=False)
    media: tuple[int, ...] = ()  # the shared media on its path
    relays: frozenset[str] = frozenset()  # the devices between the two ends
    # From the aggregator to the device, both included. Not compared: equal devices differ in its last step.
    path: tuple[str, ...] = field(default=(), compare=False)

    def time_us(self, load_bytes: Sequence[int], us_per_byte: Sequence[Fraction]) -> int:
        """Return the time [us], rounded up, as the last of all messages on its media.

        Args:
            load_bytes: Bytes of all messages on each medium, this one included.
            us_per_byte: Time per byte of each medium.
        """
        waits = sum(((load_bytes[m] - self.num_bytes) * us_per_byte[m] for m in self.media), Fraction(0))
        return math.ceil(self.alone_us + waits)


def rational(number: float) -> Fraction:
    """Return a number exactly as the user wrote it: 0.1 is a tenth, not the nearest binary fraction."""
    return Fraction(repr(float(number)))


def media_us_per_byte(fleet: Fleet) -> tuple[Fraction, ...]:
    """Return the time per byte [us] of each shared medium, in the order of the links, that of the default link last."""
    found: dict[int, Fraction] = {}
    for number, speed in zip(_medium_numbers(fleet), fleet.link_speeds, strict=True):
        found[number] = 8 / rational(speed.bandwidth_mbps)
    return tuple(found[number] for number in sorted(found) if number >= 0)


def medium_loads(transfers: Sequence[Transfer], num_media: int) -> list[int]:
    """Return the bytes that these messages send over each medium together."""
    load_bytes = [0] * num_media
    for transfer in transfers:
        for m in transfer.media:
            load_bytes[m] += transfer.num_bytes
    return load_bytes


def hop_graph(fleet: Fleet) -> nx.Graph:
    """Return the graph of single devices and the hops between them, without the default link."""
    graph = nx.Graph()
    graph.add_nodes_from(member.name for member in fleet.members)
    graph.add_edges_from((hop.a, hop.b) for hop in _hops(fleet))
    return graph


def _hops(fleet: Fleet) -> Iterator[Hop]:
    """Yield the hops between single devices, without the default link."""
    for link, medium in zip(fleet.links, _medium_numbers(fleet), strict=False):
        latency_ms, bandwidth_mbps = rational(link.latency_ms), rational(link.bandwidth_mbps)
        ends = (fleet.member_names[name] for name in link.between)
        # Where one end is a device of the other's count, it has no hop to itself.
        yield from (Hop(a, b, latency_ms, bandwidth_mbps, medium) for a, b in itertools.product(*ends) if a != b)


def make_router(fleet: Fleet) -> Callable[[str, int], Transfer]:
    """Return a function (device, bytes) -> `Transfer` over the fastest path.

    Raises:
        InputError: If a device cannot be reached from the aggregator.
    """
    numbers, paths = _medium_numbers(fleet), fastest_paths(fleet.aggregator, _hops(fleet))
    reached = nx.node_connected_component(hop_graph(fleet), fleet.aggregator)
    default = fleet.default_link
    for member in fleet.members:
        if member.name == fleet.aggregator or member.name in paths:
            continue
        if member.name in reached:
            raise InputError(
                f"device {quoted(member.name)}: must be at most {MAX_HOPS} hops from the aggregator "
                f"{quoted(fleet.aggregator)}, got more; add a link."
            )
        if default is None:
            raise InputError(
                f"device {quoted(member.name)}: must be reachable from the aggregator {quoted(fleet.aggregator)}, "
                "got no path of links; add a link or a default_link."
            )

    def route(device: str, num_bytes: int) -> Transfer:
        if device == fleet.aggregator:
            return Transfer(0, Fraction(0), path=(device,))
        bits = 8 * num_bytes
        if device not in paths:
            assert default is not None
            latency_us = 1000 * rational(default.latency_ms)
            alone_us = latency_us + bits / rational(default.bandwidth_mbps)
            shared = (numbers[-1],) if default.shared else ()
            return Transfer(num_bytes, alone_us, latency_us, shared, path=(fleet.aggregator, device))
        fastest = min(paths[device], key=lambda path: path.time_us(bits))
        steps = fastest.steps
        names = tuple(step.device for step in steps)
        return Transfer(
            num_bytes,
            fastest.time_us(bits),
            1000 * fastest.latency_ms,
            tuple(sorted({step.medium for step in steps} - {-1})),
            frozenset(names[1:-1]),
            names,
        )

    return route


def _medium_numbers(fleet: Fleet) -> list[int]:
    """Return the number of each link's medium, that of the default link last; -1 for a link that is not shared."""
    known: dict[str | int, int] = {}
    numbers = []
    for i, speed in enumerate(fleet.link_speeds):
        label = speed.shared if isinstance(speed.shared, str) else i
        numbers.append(known.setdefault(label, len(known)) if speed.shared else -1)
    return numbers
