"""Transfer times between the aggregator and the devices: routes, and shared media.

A message takes the path that is fastest for it alone. A shared link is one medium: messages pass it one after another,
all inputs first, and later all features. Each device is planned as the last in the queue, so that the order does not
matter: its message waits for those of all other used devices that take the same medium.
"""

import itertools
import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import networkx as nx

from planner.errors import InputError, quoted
from planner.rules.fastest_paths import MAX_HOPS, FastestPath, Hop, fastest_paths
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


class Router:
    """Routes of a fleet: each message takes the path that is fastest for it alone.

    Raises:
        InputError: If a device cannot be reached from the aggregator.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._aggregator, self._default = fleet.aggregator, fleet.default_link
        self._default_medium = _medium_numbers(fleet)[-1] if fleet.default_link else -1
        self._ways = fastest_paths(fleet.aggregator, _hops(fleet))
        reached = nx.node_connected_component(hop_graph(fleet), fleet.aggregator)
        for member in fleet.members:
            if member.name == fleet.aggregator or member.name in self._ways:
                continue
            if member.name in reached:
                raise InputError(
                    f"device {quoted(member.name)}: must be at most {MAX_HOPS} hops from the aggregator "
                    f"{quoted(fleet.aggregator)}, got more; add a link."
                )
            if fleet.default_link is None:
                raise InputError(
                    f"device {quoted(member.name)}: must be reachable from the aggregator {quoted(fleet.aggregator)}, "
                    "got no path of links; add a link or a default_link."
                )

    def transfer(self, device: str, num_bytes: int) -> Transfer:
        """Return a message between the aggregator and a device."""
        if device == self._aggregator:
            return Transfer(0, Fraction(0))
        bits = 8 * num_bytes
        if device not in self._ways:
            default = self._default
            assert default is not None
            latency_us = 1000 * rational(default.latency_ms)
            alone_us = latency_us + bits / rational(default.bandwidth_mbps)
            return Transfer(num_bytes, alone_us, latency_us, (self._default_medium,) if default.shared else ())
        way = self._fastest(device, bits)
        return Transfer(num_bytes, way.time_us(bits), 1000 * way.latency_ms, _media(way), _relays(way))

    def path(self, device: str, num_bytes: int) -> tuple[str, ...]:
        """Return the devices that a message passes, from the aggregator to the device, both included."""
        if device == self._aggregator:
            return (device,)
        if device not in self._ways:
            return (self._aggregator, device)
        return tuple(step.device for step in self._fastest(device, 8 * num_bytes).steps)

    def ways(self, device: str) -> Hashable:
        """Return a key that two devices have in common where their messages take the same time, whatever the size."""
        if device == self._aggregator or device not in self._ways:
            return device == self._aggregator
        return tuple((way.latency_ms, way.bandwidth_mbps, _media(way), _relays(way)) for way in self._ways[device])

    def _fastest(self, device: str, num_bits: int) -> FastestPath:
        return min(self._ways[device], key=lambda way: way.time_us(num_bits))


def _media(way: FastestPath) -> tuple[int, ...]:
    return tuple(sorted({step.medium for step in way.steps} - {-1}))


def _relays(way: FastestPath) -> frozenset[str]:
    return frozenset(step.device for step in way.steps[1:-1])


def _medium_numbers(fleet: Fleet) -> list[int]:
    """Return the number of each link's medium, that of the default link last; -1 for a link that is not shared."""
    known: dict[str | int, int] = {}
    numbers = []
    for i, speed in enumerate(fleet.link_speeds):
        label = speed.shared if isinstance(speed.shared, str) else i
        numbers.append(known.setdefault(label, len(known)) if speed.shared else -1)
    return numbers
