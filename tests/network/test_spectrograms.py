"""Sounds as spectrograms: against sums written out, and from files of every kind."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.io import wavfile

from planner.arrays import Floats
from planner.errors import InputError
from planner.network import data
from planner.schema import ModelCard
from planner.spectrograms import FramePlan, log_mel

RATE = 1000
SMALL = FramePlan(RATE, num_bands=4, num_frames=3, frame=12, hop=5)
SILENCE = math.log(1e-7)


def noise(count: int, seed: int = 0) -> Floats:
    """Return random samples from -0.5 to 0.5."""
    return np.random.default_rng(seed).uniform(-0.5, 0.5, count)


def plain_log_mel(samples: Floats, plan: FramePlan, fft_size: int) -> list[list[float]]:
    """Return the spectrogram [band][frame] of a clip just as long as the frames, in sums written out."""
    bands: list[list[float]] = [[] for _ in range(plan.num_bands)]

    def mel(hertz: float) -> float:
        return 2595 * math.log10(1 + hertz / 700)

    low, high = mel(20), mel(plan.sample_rate / 2)
    step = (high - low) / (plan.num_bands + 1)
    for f in range(plan.num_frames):
        frame = [float(x) for x in samples[f * plan.hop : f * plan.hop + plan.frame]]
        mean = sum(frame) / len(frame)
        frame = [x - mean for x in frame]
        emphasised = [x - 0.97 * frame[max(0, t - 1)] for t, x in enumerate(frame)]
        n = len(frame)
        windowed = [x * (0.5 - 0.5 * math.cos(2 * math.pi * t / (n - 1))) for t, x in enumerate(emphasised)]
        powers = [0.0] * plan.num_bands
        for k in range(fft_size // 2 + 1):
            real = sum(x * math.cos(2 * math.pi * k * t / fft_size) for t, x in enumerate(windowed))
            imaginary = sum(x * math.sin(2 * math.pi * k * t / fft_size) for t, x in enumerate(windowed))
            at = mel(k * plan.sample_rate / fft_size)
            for band in range(plan.num_bands):
                distance = abs(at - (low + (band + 1) * step))
                powers[band] += max(0.0, 1 - distance / step) * (real**2 + imaginary**2)
        for band, power in enumerate(powers):
            bands[band].append(math.log(max(power, 1e-7)))
    return bands


@pytest.mark.parametrize("seed", range(3))
def test_spectrograms_are_the_sums_of_their_definition(seed: int) -> None:
    """Windows, Fourier sums and triangles on the mel scale, one number after the other."""
    samples = noise(SMALL.num_samples, seed)
    np.testing.assert_allclose(log_mel(samples, SMALL), plain_log_mel(samples, SMALL, 16), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("hertz", [300, 1000, 2500])
def test_a_tone_is_loudest_in_its_band(hertz: int) -> None:
    """The loudest of 40 bands has the frequency of the tone between its corners."""
    plan = FramePlan(8000, num_bands=40, num_frames=5, frame=200, hop=80)
    tone = np.sin(2 * np.pi * hertz / 8000 * np.arange(plan.num_samples))
    corners = 700 * np.expm1(np.linspace(np.log1p(20 / 700), np.log1p(4000 / 700), 42))
    for band in log_mel(tone, plan).argmax(0):
        assert corners[band] < hertz < corners[band + 2]


def test_long_clips_are_cut_and_short_ones_end_in_silence() -> None:
    """The middle of a long clip is kept; frames behind a short one are silent."""
    samples = noise(SMALL.num_samples)
    around = np.concatenate([noise(7, 1), samples, noise(7, 2)])
    np.testing.assert_array_equal(log_mel(around, SMALL), log_mel(samples, SMALL))
    short = log_mel(samples[:6], SMALL)
    assert (short[:, 0] > SILENCE).any()
    np.testing.assert_allclose(short[:, 2], SILENCE)


# From files


def card_of(folder: Path, source: dict[str, Any], **architecture: Any) -> ModelCard:
    """Return a card of spectrograms of 4 bands and 3 frames, of the sounds of a folder."""
    sizes = {"embed_dim": 8, "depth": 1, "num_heads": 1, "head_dim": 8, "hidden_dim": 4, "in_channels": 1}
    fields = {
        "model": "sounds",
        "description": "",
        "architecture": sizes | {"image_size": [4, 3], "patch_size": [2, 3]} | architecture,
        "classes": ["high", "low"],
        "preprocessing": {"scale": 1.0, "mean": [-3.0], "std": [2.0]},
        "data": source | {"spectrogram": {"sample_rate": RATE, "window_ms": 12, "hop_ms": 5}},
    }
    return ModelCard.model_validate(fields).with_paths_in(folder)


def test_spectrograms_are_of_one_channel_and_one_size() -> None:
    """A card that has three channels of them, or resizes them, is refused."""
    fields = card_of(Path(), FOLDER).model_dump(exclude_unset=True)
    coloured = {"architecture": fields["architecture"] | {"in_channels": 3}}
    coloured["preprocessing"] = {"mean": [0.0] * 3, "std": [1.0] * 3}
    with pytest.raises(ValidationError, match="data: spectrograms have one channel, got in_channels 3"):
        ModelCard.model_validate(fields | coloured)
    resizing = {"preprocessing": fields["preprocessing"] | {"resize": "letterbox"}}
    with pytest.raises(ValidationError, match="preprocessing: resize must be left out with spectrograms"):
        ModelCard.model_validate(fields | resizing)


FOLDER = {"source": "audio-folder", "train": "train", "test_share": 0.5, "split_seed": 0}
ARRAYS = {"source": "audio-npz", "train": "train.npz", "test_share": 0.5, "split_seed": 0}


def write_wavs(folder: Path, clips: list[Floats], dtype: type = np.float32, rate: int = RATE) -> None:
    """Write clips as .wav files, the even ones of class high, the odd ones of class low."""
    for i, clip in enumerate(clips):
        file = folder / "train" / ("high", "low")[i % 2] / f"{i}.wav"
        file.parent.mkdir(parents=True, exist_ok=True)
        stored = clip if dtype is np.float32 else np.rint(clip * -float(np.iinfo(dtype).min))
        if dtype is np.uint8:
            stored = np.rint(clip * 128 + 128)
        wavfile.write(file, rate, stored.astype(dtype))


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(np.float32, 1e-4), (np.int32, 1e-4), (np.int16, 0.05), (np.uint8, 2)]
)
def test_wav_files_are_read_in_every_width(tmp_path: Path, dtype: type, tolerance: float) -> None:
    """The network's input is that of the samples that were written, (value - mean) / std."""
    clips = [noise(SMALL.num_samples, seed) for seed in range(8)]
    write_wavs(tmp_path, clips, dtype)
    training = data.load(card_of(tmp_path, FOLDER), "train")
    # The order of the files: by class, and in it by name.
    stored = [clips[i] for i in (0, 2, 4, 6, 1, 3, 5, 7)]
    assert isinstance(training.images, data.LazyImages)
    for image, index in zip(training.tensor(), training.images.indices.tolist(), strict=True):
        expected = (torch.from_numpy(log_mel(stored[index], SMALL)) + 3) / 2
        torch.testing.assert_close(image[0].double(), expected, rtol=0, atol=tolerance)


def test_channels_are_mixed(tmp_path: Path) -> None:
    """Of a stereo file, the mean of both channels is heard."""
    clip = noise(SMALL.num_samples)
    stereo = np.stack([clip + 0.25, clip - 0.25], axis=1)
    write_wavs(tmp_path, [stereo, stereo, stereo, stereo])
    image = data.load(card_of(tmp_path, FOLDER), "train").tensor()[0, 0]
    torch.testing.assert_close(image.double(), (torch.from_numpy(log_mel(clip, SMALL)) + 3) / 2, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_arrays_of_samples_are_read(tmp_path: Path, dtype: type) -> None:
    """Rows of an array are clips, as the same samples in files are."""
    clips = np.stack([noise(SMALL.num_samples, seed) for seed in range(8)])
    stored = np.rint(clips * 32768) if dtype is np.int16 else clips
    np.savez(tmp_path / "train.npz", samples=stored.astype(dtype), labels=np.arange(8) % 2)
    training = data.load(card_of(tmp_path, ARRAYS), "train")
    assert training.tensor().shape == (4, 1, 4, 3)
    assert isinstance(training.images, data.LazyImages)
    for image, index in zip(training.tensor(), training.images.indices.tolist(), strict=True):
        expected = (torch.from_numpy(log_mel(clips[index], SMALL)) + 3) / 2
        torch.testing.assert_close(image[0].double(), expected, rtol=0, atol=0.05)


def test_zeros_behind_a_clip_are_no_part_of_it(tmp_path: Path) -> None:
    """Of an array whose rows are longer than the frames, a short clip is heard from its beginning."""
    clip = noise(SMALL.num_samples)
    rows = np.zeros((4, 3 * SMALL.num_samples), np.float32)
    rows[:, : len(clip)] = clip
    np.savez(tmp_path / "train.npz", samples=rows, labels=np.arange(4) % 2)
    image = data.load(card_of(tmp_path, ARRAYS), "train").tensor()[0, 0]
    torch.testing.assert_close(image.double(), (torch.from_numpy(log_mel(clip, SMALL)) + 3) / 2, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((4, 9), np.int64), "'samples' must be int16 or float32, N x T, got int64 of shape"),
        (np.zeros(4, np.int16), "'samples' must be int16 or float32"),
        (np.zeros((4, 0), np.int16), "'samples' must be int16 or float32"),
        (np.full((4, 9), np.nan, np.float32), "'samples' must be finite numbers"),
        (np.zeros((3, 9), np.int16), "must have a label for each image"),
    ],
)
def test_arrays_that_are_no_clips_are_refused(tmp_path: Path, samples: Any, message: str) -> None:
    """One sentence that names the file."""
    np.savez(tmp_path / "train.npz", samples=samples, labels=np.arange(4) % 2)
    with pytest.raises(InputError, match=message) as error:
        data.load(card_of(tmp_path, ARRAYS), "train")
    assert str(error.value).startswith(str(tmp_path / "train.npz"))


def test_files_that_are_no_clips_are_refused(tmp_path: Path) -> None:
    """Another rate, damage, silence without samples: one sentence that names the file and what to do."""
    write_wavs(tmp_path, [noise(40)] * 4)
    card, folder = card_of(tmp_path, FOLDER), tmp_path / "train" / "high"
    for content, message in (
        (b"RIFF", r"must be a \.wav file of plain samples, got a damaged or another one"),
        (b"", r"must be a \.wav file"),
    ):
        for file in folder.iterdir():
            file.write_bytes(content)
        with pytest.raises(InputError, match=message):
            data.load(card, "train").images[:]
    for rate, samples, message in (
        (2 * RATE, noise(40), r"sample_rate of 1000 Hz, got 2000: convert the files"),
        (RATE, np.zeros(0), "must hold samples, got none"),
        (RATE, np.full(40, np.nan), "must be finite numbers"),
    ):
        for file in folder.iterdir():
            wavfile.write(file, rate, samples.astype(np.float32))
        with pytest.raises(InputError, match=message) as error:
            data.load(card, "train").images[:]
        assert str(error.value).startswith(str(folder))
