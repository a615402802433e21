"""Search of the widest network within a time."""

from collections.abc import Callable, Sequence


def largest_width(
    times_us: Callable[[Sequence[int]], tuple[float, Sequence[float]]], widths: Sequence[int], share: float = 1.0
) -> int:
    """Return the largest width whose network takes at most a share of a reference's time; the smallest if none does.

    All are timed: a wider network may be faster, where its filters fill the processor's registers.

    Args:
        times_us: The reference's time and those of networks of these widths, measured side by side [us].
        widths: Widths to choose from.
        share: Longest time, as a share of the reference's.
    """
    reference, times = times_us(widths)
    within = [width for width, us in zip(widths, times, strict=True) if us <= share * reference]
    return max(within, default=min(widths))
