"""Work on several threads that changes no value: frozen networks over batches, sub-models that learn together."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from torch import Tensor

_num_threads: ContextVar[int] = ContextVar("num_threads", default=1)


@contextmanager
def work_side_by_side(num_threads: int) -> Iterator[None]:
    """Let this thread's work on networks be done by so many; its values stay the same bit for bit."""
    token = _num_threads.set(num_threads)
    try:
        yield
    finally:
        _num_threads.reset(token)


def num_threads_for(num_pieces: int) -> int:
    """Return how many threads may work on so many pieces."""
    return max(1, min(_num_threads.get(), num_pieces))


def values_side_by_side(functions: Sequence[Callable[[], Tensor]]) -> list[Tensor]:
    """Return each function's value; gradients are computed side by side, too.

    Args:
        functions: Functions that have no parameters in common.
    """
    if num_threads_for(len(functions)) == 1:
        return [function() for function in functions]
    if not torch.is_grad_enabled():
        return _each(torch.no_grad, functions)
    # Something must ask for gradients, or nobody does.
    values: tuple[Tensor, ...] = _SideBySide.apply(torch.zeros((), requires_grad=True), functions)  # type: ignore[no-untyped-call]
    return list(values)


def _each(mode: Callable[[], Any], functions: Sequence[Callable[[], Any]]) -> list[Any]:
    in_bfloat16 = torch.is_autocast_enabled("cpu")

    def value_of(function: Callable[[], Any]) -> Any:
        # Mode and precision are a thread's own.
        with mode(), torch.autocast("cpu", torch.bfloat16, enabled=in_bfloat16):
            return function()

    with ThreadPoolExecutor(num_threads_for(len(functions))) as pool:
        return list(pool.map(value_of, functions))


class _SideBySide(torch.autograd.Function):
    """Values of functions, whose graphs are kept apart so that each goes back on a thread of its own."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, functions: Sequence[Callable[[], Tensor]]) -> tuple[Tensor, ...]:
        ctx.values = _each(torch.enable_grad, functions)
        return tuple(value.detach() for value in ctx.values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None]:
        pairs = zip(ctx.values, gradients, strict=True)
        _each(torch.enable_grad, [partial(torch.autograd.backward, *pair) for pair in pairs])
        return None, None
