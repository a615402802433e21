"""Whole units near a relaxed sub-model: what is kept in part is kept or removed, and some floors may be missed.

A relaxed sub-model keeps few units in part, no more than floors and budgets bind. Where it serves hundreds of classes,
a whole one that serves all of them is hard to find or does not exist, but one that serves most of them is at hand.
"""

import numpy as np

from planner.arrays import Bools, Floats
from planner.solver.problem.option import Option
from planner.solver.submodels.relaxation import RelaxedSubModel

# A unit is kept as a whole if it is this near to it, and not at all if it is this near to that.
_WHOLE = 1e-6


def rounded(option: Option, relaxed: RelaxedSubModel, worth: Floats, within_us: int) -> Bools:
    """Return units that are kept, (U,), within the budgets and a compute time [us].

    Those come first that are kept as a whole, then those in part, the worthiest first, as long as there is room.

    Args:
        option: Device, embed dim and precision.
        relaxed: Relaxed sub-model; where budgets are elastic, it may exceed them by a little.
        worth: Worth of each unit, (U,).
        within_us: Compute time [us].
    """
    whole = relaxed.kept > 1 - _WHOLE
    kept: Bools = np.zeros(len(whole), dtype=bool)
    left = np.flatnonzero(relaxed.kept > _WHOLE)
    if _has_room(option, whole, within_us):
        kept, left = whole.copy(), left[~whole[left]]
    for u in left[np.lexsort((-relaxed.kept[left], -worth[left], ~whole[left]))].tolist():
        kept[u] = True
        kept[u] = _has_room(option, kept, within_us)
    return kept


def _has_room(option: Option, kept: Bools, within_us: int) -> bool:
    fits = bool((option.costs.grains(kept[None])[0] <= option.free_grains).all())
    return fits and int(option.costs.compute_us(kept[None])[0]) <= within_us
