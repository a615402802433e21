"""Proof by prices that no plan is within a time.

Let F_g be the class sets that one device of group g can serve within time T by the relaxation, pi_r >= 0 a price for
each row r of the covering problem (class c_r on at least k_r devices of the groups G_r), and

    sigma_g >= max over S in F_g of sum_{c in S} p_gc,    p_gc = sum of pi_r over the rows of c that count g.

If sum_r k_r pi_r > sum_g n_g sigma_g, no plan is within T: in such a plan the class set S_d of each device d is in
F_g(d), and every row is covered, so sum_r k_r pi_r <= sum_d sum_{c in S_d} p_g(d)c <= sum_g n_g sigma_g. Where at most
m devices may be used, only the m largest sigma count. Real paths take at least as long as free ones, and pins, classes
together and apart only make less possible.

sigma_g comes from `pricing`, for all options of the group. Any bound will do, so a pricing that is stopped is as valid
as one that is finished; it goes on where most can be gained, until the prices prove T or cannot prove it any more.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner.arrays import Floats
from planner.solver.large.conflicts import Conflicts
from planner.solver.large.pricing import Pricing
from planner.solver.large.set_cover import ClassSet, SetCover
from planner.solver.problem.clock import Clock

# Differences of prices below this are rounding.
_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class PriceProof:
    """Result of an attempt: by how much the prices exceed what devices can serve, and class sets that were met."""

    excess: float  # above 0: no plan is within the time
    new: list[ClassSet]

    @property
    def holds(self) -> bool:
        """Proof that no plan is within the time: true or not."""
        return self.excess > _ROUNDING


def prove(
    cover: SetCover,
    conflicts: Sequence[Conflicts],
    known: Sequence[ClassSet],
    row_prices: Floats,
    latency_us: int,
    clock: Clock,
) -> PriceProof:
    """Try to prove at these prices that no plan has all devices within a time.

    Args:
        cover: Covering problem.
        conflicts: Those of each option.
        known: Class sets that the relaxation allows within the time.
        row_prices: Price of each row, (rows,).
        latency_us: Time [us].
        clock: Time for it.
    """
    due = float(cover.demand @ row_prices)
    prices = [cover.class_prices(g, row_prices) for g in range(len(cover.counts))]
    pricings = [Pricing(c, prices[cover.group_of[o]], latency_us) for o, c in enumerate(conflicts)]
    served = np.zeros(len(cover.counts))
    for column in known:
        g = cover.group_of[column.option]
        served[g] = max(served[g], prices[g][list(column.classes)].sum())
    new: list[ClassSet] = []
    while True:
        bounds = served.copy()
        for o, pricing in enumerate(pricings):
            bounds[cover.group_of[o]] = max(bounds[cover.group_of[o]], pricing.bound)
        excess = due - cover.most(bounds)
        hopeless = bool(new) and due - cover.most(served) <= _ROUNDING
        gains = [
            0.0 if p.is_done else (p.bound - served[cover.group_of[o]]) * cover.counts[cover.group_of[o]]
            for o, p in enumerate(pricings)
        ]
        best = int(np.argmax(gains))
        if excess > _ROUNDING or hopeless or gains[best] <= _ROUNDING or clock.expired():
            return PriceProof(excess, new)
        found = pricings[best].step(clock)
        if found:
            g = cover.group_of[best]
            worth = float(prices[g][list(found)].sum())
            if worth > served[g] + _ROUNDING:
                new.append(ClassSet(best, found))
                served[g] = worth
