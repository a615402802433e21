"""Log-mel spectrograms of sounds, which data sources and the runtime share: mel bands by time; knows no torch.

    frames of window_ms every hop_ms -> mean removed -> x[t] - 0.97 x[t-1] -> Hann window -> power spectrum
    -> triangular filters, equally wide on the mel scale from 20 Hz to half the sample rate -> logarithm

Clips are cut from the middle where they are too long, and end in silence where they are too short.

Legend: T samples of a clip, M mel bands, F frames, n samples of a frame, K frequencies.

Source:
    Spectrograms of AST: Gong et al., arXiv 2104.01778, section 2 (Kaldi's filter banks); mel scale of HTK.
"""

import functools
import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.arrays import Floats
from planner.errors import InputError
from planner.files import read_content
from planner.schema import Spectrogram

_PREEMPHASIS = 0.97
_MIN_HERTZ = 20.0
# Power of a band in silence: about that of rounding to 16 bits.
_MIN_POWER = 1e-7
_MAX_WAV_BYTES = 256 * 2**20


@dataclass(frozen=True)
class FramePlan:
    """Sizes of a spectrogram: M mel bands, F frames of n samples, each `hop` samples after the one before."""

    sample_rate: int
    num_bands: int
    num_frames: int
    frame: int
    hop: int

    @classmethod
    def of(cls, spectrogram: Spectrogram, sides: tuple[int, int]) -> "FramePlan":
        """Return the sizes for images of these sides, M and F."""
        rate = spectrogram.sample_rate
        frame, hop = (round(rate * ms / 1000) for ms in (spectrogram.window_ms, spectrogram.hop_ms))
        return cls(rate, *sides, frame, hop)

    @property
    def num_samples(self) -> int:
        """Number of samples that all frames together span."""
        return self.frame + (self.num_frames - 1) * self.hop


def log_mel(samples: Floats, plan: FramePlan) -> Floats:
    """Return the spectrogram (M, F) of a clip (T,) with values from -1 to 1."""
    clip = _fitted(samples, plan.num_samples)
    frames = np.lib.stride_tricks.sliding_window_view(clip, plan.frame)[:: plan.hop]  # (F, n)
    frames = frames - frames.mean(1, keepdims=True)
    previous = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    spectrum = np.fft.rfft((frames - _PREEMPHASIS * previous) * np.hanning(plan.frame), _fft_size(plan.frame))
    power = np.abs(spectrum) ** 2 @ _filters(plan.num_bands, _fft_size(plan.frame), plan.sample_rate).T  # (F, M)
    return np.asarray(np.log(np.maximum(power, _MIN_POWER)).T)


def _fitted(samples: Floats, count: int) -> Floats:
    """Return the middle of a clip, or the clip with silence behind it."""
    start = max(0, (len(samples) - count) // 2)
    kept = samples[start : start + count]
    return np.concatenate([kept, np.zeros(count - len(kept))])


def _fft_size(frame: int) -> int:
    """Return the next power of two."""
    return 1 << (frame - 1).bit_length()


@functools.cache
def _filters(num_bands: int, fft_size: int, sample_rate: int) -> Floats:
    """Return the weight of each frequency in each band, (M, K)."""
    hertz = np.arange(fft_size // 2 + 1) * sample_rate / fft_size
    low, high = _mel(np.array([_MIN_HERTZ, sample_rate / 2]))
    corners = np.linspace(low, high, num_bands + 2)
    rising = (_mel(hertz) - corners[:-2, None]) / (corners[1:-1] - corners[:-2])[:, None]
    falling = (corners[2:, None] - _mel(hertz)) / (corners[2:] - corners[1:-1])[:, None]
    return np.asarray(np.maximum(0.0, np.minimum(rising, falling)))


def _mel(hertz: Floats) -> Floats:
    return np.asarray(1127.0 * np.log1p(hertz / 700.0))


def samples_as_floats(samples: NDArray[Any]) -> Floats:
    """Return samples as numbers from -1 to 1."""
    values: Floats = samples.astype(np.float64)
    if samples.dtype == np.uint8:
        # Files of 8 bits have no sign.
        return (values - 128) / 128
    if np.issubdtype(samples.dtype, np.integer):
        values = values / -float(np.iinfo(samples.dtype).min)
    return values


def read_wav(source: Path | bytes, where: Path | str, sample_rate: int) -> Floats:
    """Return the samples of a .wav file, the mean of its channels (T,).

    Args:
        source: Path of the file, or its content.
        where: Source to name in messages.
        sample_rate: Samples in a second that it must have.

    Raises:
        InputError: If it is no .wav file, a damaged one, or of another sample rate.
    """
    from scipy.io import wavfile

    content = io.BytesIO(read_content(source, _MAX_WAV_BYTES) if isinstance(source, Path) else source)
    try:
        with warnings.catch_warnings():
            # Chunks of text and other extras.
            warnings.simplefilter("ignore")
            rate, samples = wavfile.read(content)
    # A damaged file can fail anywhere in scipy's reader.
    except Exception:
        raise InputError(f"{where}: must be a .wav file of plain samples, got a damaged or another one.") from None
    if rate != sample_rate:
        raise InputError(
            f"{where}: must have the card's sample_rate of {sample_rate} Hz, got {rate}: convert the files, as by "
            f"ffmpeg -i in.wav -ar {sample_rate} out.wav."
        )
    if samples.size == 0:
        raise InputError(f"{where}: must hold samples, got none.")
    values = samples_as_floats(samples)
    if not np.isfinite(values).all():
        raise InputError(f"{where}: samples must be finite numbers, got NaN or infinity.")
    return values if values.ndim == 1 else values.mean(1)
