"""State of a training between two epochs, and the same as bytes: a safetensors file with the epochs so far.

Nothing of it is pickled, and nothing depends on where it was made: tensors are those of the CPU.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from planner.errors import PlannerError

_MODEL, _MOMENTS, _AVERAGE, _BEST = "model.", "moments.", "average.", "best."
# One key for all: a file's metadata have no order.
_KEY = "training"


@dataclass(frozen=True)
class Epoch:
    """The start or a finished epoch: one line of metrics.jsonl, whose keys are these names."""

    training: str
    epoch: int  # 0 (the start) to epochs
    epochs: int
    loss: float | None  # mean of the epoch's batches; None at the start
    held_loss: float | None  # of the validation samples; None where there are none
    held_accuracy: float | None  # of the same samples
    accuracy_as_cut: float | None  # the same before the start's preparation, where there was one
    learning_rate: float  # of the last step; at the start the highest one of all epochs
    seconds: float
    # The lowest held_loss so far; without validation samples, the last epoch is the best.
    best: bool


@dataclass(frozen=True)
class State:
    """A training between two epochs."""

    model: Mapping[str, Tensor]
    # AdamW's, "exp_avg.<parameter>" and the like.
    moments: Mapping[str, Tensor]
    # Moving average of the model, where there is one.
    average: Mapping[str, Tensor] | None
    # The best epoch's model, where that is not the model as it is.
    best: Mapping[str, Tensor] | None
    history: tuple[Epoch, ...]
    finished: bool


def to_bytes(state: State) -> bytes:
    """Return a state as a safetensors file's content."""
    parts = (
        (_MODEL, state.model),
        (_MOMENTS, state.moments),
        (_AVERAGE, state.average or {}),
        (_BEST, state.best or {}),
    )
    tensors = {key + name: tensor.cpu().contiguous() for key, part in parts for name, tensor in part.items()}
    metadata = {"finished": state.finished, "history": [asdict(epoch) for epoch in state.history]}
    return save(tensors, {_KEY: json.dumps(metadata)})


def from_bytes(content: bytes) -> State:
    """Return the state that `to_bytes` was given; to be called within `translating_errors`."""
    tensors = load(content)
    model, moments, average, best = (
        {name.removeprefix(key): tensor for name, tensor in tensors.items() if name.startswith(key)}
        for key in (_MODEL, _MOMENTS, _AVERAGE, _BEST)
    )
    history, finished = _read_metadata(content)
    return State(model, moments, average or None, best or None, history, finished)


def history(state: bytes) -> tuple[Epoch, ...]:
    """Return the finished epochs of a state.

    Raises:
        PlannerError: If it is no training state.
    """
    with translating_errors("the given state"):
        return _read_metadata(state)[0]


def is_finished(state: bytes) -> bool:
    """Return whether a state is a training's last.

    Raises:
        PlannerError: If it is no training state.
    """
    with translating_errors("the given state"):
        return _read_metadata(state)[1]


@contextmanager
def translating_errors(where: str) -> Iterator[None]:
    """Turn whatever a damaged state, or one of another network, raises into a PlannerError for the user."""
    try:
        yield
    # Missing or unreadable metadata is a KeyError, TypeError or ValueError, another network's shape a RuntimeError.
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise PlannerError(f"{where}: not a training state ({reason}); delete it to begin again.") from None


def _read_metadata(content: bytes) -> tuple[tuple[Epoch, ...], bool]:
    """Return the finished epochs and whether they are all, from the header alone.

    Source:
        The format: eight bytes of length, then JSON; https://github.com/huggingface/safetensors.
    """
    length = int.from_bytes(content[:8], "little")
    header: Any = json.loads(content[8 : 8 + length])
    metadata = json.loads(header["__metadata__"][_KEY])
    return tuple(Epoch(**epoch) for epoch in metadata["history"]), bool(metadata["finished"])
