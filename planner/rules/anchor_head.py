"""Anchor head: the one head that every sub-model keeps.

Of the heads of the last block it is the one whose importance, summed over all classes, is largest. A sub-model whose
last blocks have no head is blind to what its blocks made of the patches: its class token sees the raw ones only.
"""

import math

from planner.schema import Profile


def anchor_head(profile: Profile) -> int | None:
    """Return the anchor head as an index in the last block, the lowest on ties; None where there are no heads."""
    if not profile.num_heads:
        return None
    last = [heads[-1] for heads in profile.importance.heads]
    return max(range(profile.num_heads), key=lambda h: math.fsum(of_class[h] for of_class in last))
