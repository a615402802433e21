"""Paths of least latency from one device, for each bandwidth that a path may have at least.

The fastest path depends on the size of the message: the larger, the more bandwidth counts. Links are added in the order
of their bandwidths, the widest first, and Dijkstra's algorithm goes on from what they shorten, so that the work is that
of one search plus the improvements. Along a chain or a tree each device is reached once, whatever the bandwidths.

Source:
    Dijkstra, A note on two problems in connexion with graphs, doi:10.1007/BF01386390.
"""

import heapq
import itertools
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

# Longer ways to a device are not looked for: no relay of so many messages would be one system.
MAX_HOPS = 64


@dataclass(frozen=True)
class Hop:
    """Link between two single devices: latency [ms], bandwidth [Mbit/s], and its medium, -1 if it is not shared."""

    a: str
    b: str
    latency_ms: Fraction
    bandwidth_mbps: Fraction
    medium: int


@dataclass(frozen=True)
class FastestPath:
    """Way to a device on which every hop has at least a bandwidth, as a step from the way to the device before it."""

    device: str
    latency_ms: Fraction
    bandwidth_mbps: Fraction
    num_hops: int = 0
    before: "FastestPath | None" = None
    medium: int = -1

    def time_us(self, num_bits: int) -> Fraction:
        """Return the time of a message [us]."""
        return 1000 * self.latency_ms + num_bits / self.bandwidth_mbps

    @property
    def steps(self) -> "list[FastestPath]":
        """Steps of the way, from the first device on."""
        steps: list[FastestPath] = []
        step: FastestPath | None = self
        while step is not None:
            steps.append(step)
            step = step.before
        return steps[::-1]


def fastest_paths(start: str, hops: Iterable[Hop]) -> dict[str, list[FastestPath]]:
    """Return the ways to each device that is reached over at most `MAX_HOPS` hops.

    Of a device, each way has less latency and less bandwidth than the one before it. Of equal ways, the one over
    wider links is taken.
    """
    found: dict[str, list[FastestPath]] = {}
    hops_at: dict[str, list[tuple[str, Hop]]] = defaultdict(list)
    for bandwidth, same in itertools.groupby(sorted(hops, key=lambda hop: -hop.bandwidth_mbps), _bandwidth):
        if not found:
            found[start] = [FastestPath(start, Fraction(0), bandwidth)]
        added = list(same)
        for hop in added:
            hops_at[hop.a].append((hop.b, hop))
            hops_at[hop.b].append((hop.a, hop))
        ends = dict.fromkeys(end for hop in added for end in (hop.a, hop.b) if end in found)
        _shorten(found, hops_at, bandwidth, ends)
    return found


def _bandwidth(hop: Hop) -> Fraction:
    return hop.bandwidth_mbps


def _shorten(
    found: dict[str, list[FastestPath]],
    hops_at: dict[str, list[tuple[str, Hop]]],
    bandwidth: Fraction,
    ends: Iterable[str],
) -> None:
    """Add the ways that begin with the known ones to some devices and go on over any hop, where they have less latency.

    Args:
        found: Known ways of each device; the last one has least latency.
        hops_at: Hops of each device of at least this bandwidth, with the device at the other end.
        bandwidth: Bandwidth of the new ways [Mbit/s].
        ends: Devices at which a hop was added.
    """
    ticket = itertools.count()
    waiting = [(found[end][-1].latency_ms, next(ticket), found[end][-1]) for end in ends]
    heapq.heapify(waiting)
    while waiting:
        _, _, path = heapq.heappop(waiting)
        if found[path.device][-1] is not path or path.num_hops == MAX_HOPS:
            continue
        for device, hop in hops_at[path.device]:
            latency = path.latency_ms + hop.latency_ms
            known = found.setdefault(device, [])
            if known and known[-1].latency_ms <= latency:
                continue
            longer = FastestPath(device, latency, bandwidth, path.num_hops + 1, path, hop.medium)
            if known and known[-1].bandwidth_mbps == bandwidth:
                known.pop()
            known.append(longer)
            heapq.heappush(waiting, (latency, next(ticket), longer))
