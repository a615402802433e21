"""Embed dims that the sub-models of a model may have."""

from planner.network.vit import Shape

# Of the full width; rounded, since compute kernels work best at multiples of 8.
_SHARES = ((3, 4), (1, 2), (1, 3), (1, 6))
_MULTIPLE = 8


def embed_widths(shape: Shape) -> tuple[int, ...]:
    """Return the embed widths of a model: the full one, then 3/4, 1/2, 1/3 and 1/6 of it in multiples of 8.

    Distinct and falling; a half rounds down. None is narrower than a head, whose queries would have more dims than
    the tokens that they are made of, nor than 8.
    """
    full = shape.embed_dim
    min_dim = max(_MULTIPLE, -(-shape.head_dim // _MULTIPLE) * _MULTIPLE)
    narrower = {max(min_dim, _nearest_multiple(full * part, whole)) for part, whole in _SHARES}
    return (full, *sorted((e for e in narrower if e < full), reverse=True))


def _nearest_multiple(numerator: int, denominator: int) -> int:
    """Return the multiple of 8 nearest to a fraction, in integers: ceil(x / 8 - 1/2) of them."""
    step = denominator * _MULTIPLE
    return _MULTIPLE * -(-(2 * numerator - step) // (2 * step))
