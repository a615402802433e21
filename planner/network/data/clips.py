"""Stored sounds as spectrograms, images of one channel.

Clips are cut from the middle where they are too long, and end in silence where they are too short.

Legend: N clips in store, T samples of a clip, M mel bands, F frames.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from planner.arrays import Floats
from planner.spectrograms import FramePlan, log_mel, read_wav, samples_as_floats


@dataclass(frozen=True)
class ClipArray:
    """Clips in memory, (N, T), as spectrograms; zeros at the end of a clip are no part of it."""

    source: Path
    clips: NDArray[np.int16] | NDArray[np.float32]
    plan: FramePlan

    def __len__(self) -> int:
        return len(self.clips)

    def read(self, indices: Sequence[int]) -> Iterator[tuple[Path, Tensor]]:
        """Yield one spectrogram at a time, (1, 1, M, F)."""
        for i in indices:
            yield self.source, _image(samples_as_floats(np.trim_zeros(self.clips[i], "b")), self.plan)


@dataclass(frozen=True)
class ClipFiles:
    """Files of sound, read each time they are used, as spectrograms."""

    files: tuple[Path, ...]
    plan: FramePlan

    def __len__(self) -> int:
        return len(self.files)

    def read(self, indices: Sequence[int]) -> Iterator[tuple[Path, Tensor]]:
        """Yield one spectrogram at a time, (1, 1, M, F).

        Raises:
            InputError: If a file is no .wav file, a damaged one, or of another sample rate.
        """
        for i in indices:
            yield self.files[i], _image(read_wav(self.files[i], self.files[i], self.plan.sample_rate), self.plan)


def _image(samples: Floats, plan: FramePlan) -> Tensor:
    return torch.from_numpy(log_mel(samples, plan)).float()[None, None]
