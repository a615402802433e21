"""Mutants of data files and checkpoints of every kind: each is accepted, or refused in one sentence."""

import io
import itertools
import pickle
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from planner.image_files import decode_image
from planner.network import data
from planner.network.import_settings import read_names
from tests.helpers import foreign_names
from tests.helpers.checkpoints import PLAIN, import_with
from tests.helpers.common import Json
from tests.helpers.image_files import IDX, NPZ, SIZE, card, idx, pixels, write_idx
from tests.helpers.mutants import FEW, MANY, assert_honest, mutants_of_bytes, mutants_of_document
from tests.helpers.plain_vit import random_model

LABELS = np.array([0, 1, 1, 0])
STATE = random_model(PLAIN).state_dict()
AUDIO = {"source": "audio-npz", "train": "train.npz", "test": "test.npz", "spectrogram": {"sample_rate": 16_000}}


def saved(save_: Callable[..., object], *args: Any, **named: Any) -> bytes:
    """Return what a function writes to a file."""
    file = io.BytesIO()
    save_(file, *args, **named)
    return file.getvalue()


def png() -> bytes:
    """Return a small image."""
    file = io.BytesIO()
    Image.fromarray(pixels(1)[0]).save(file, "png")
    return file.getvalue()


def wav(samples: int = 800) -> bytes:
    """Return a short sound of 16 bits."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes(np.zeros(samples, "<i2").tobytes())
    return file.getvalue()


SOUNDS = np.zeros((4, 800), np.int16)
# File that is changed, its content, and the card's data.
DATA: dict[str, tuple[str, bytes, Json]] = {
    "idx images": ("ti", idx(pixels(4)), IDX),
    "idx labels": ("tl", idx(LABELS), IDX),
    "npz": ("train.npz", saved(np.savez, images=pixels(4), labels=LABELS), NPZ),
    "packed npz": ("train.npz", saved(np.savez_compressed, images=pixels(4), labels=LABELS), NPZ),
    "sounds": ("train.npz", saved(np.savez, samples=SOUNDS, labels=LABELS), AUDIO),
    "image": ("train/0/a.png", png(), {"source": "folder", "train": "train", "test": "train"}),
    "sound": ("train/0/a.wav", wav(), {"source": "audio-folder", "train": "train", "test": "train"}),
}
DATA["sound"][2]["spectrogram"] = {"sample_rate": 16_000}
CHECKPOINTS: dict[str, bytes] = {
    "a.safetensors": save(STATE),
    "a.pth": saved(lambda file: torch.save(STATE, file)),
    "a.pt": saved(lambda file: torch.save({"model": STATE, "epoch": 1}, file, _use_new_zipfile_serialization=False)),
    "a.npz": saved(np.savez, **{name: tensor.numpy() for name, tensor in STATE.items()}),
    "a.bin": pickle.dumps({"x": [1, 2]}),
}


def fuzz_data(name: str, count: int, seed: int, tmp_path: Path) -> None:
    """Assert that the training part of a card is read or refused, whatever one of its files holds."""
    file, content, source = DATA[name]
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    if source is IDX:
        write_idx(tmp_path)
    if "folder" in source["source"]:
        other = tmp_path / "train" / "1" / path.name
        other.parent.mkdir()
        other.write_bytes(content)
    read = card(tmp_path, source)
    path.write_bytes(content)
    data.load(read, "train").tensor()
    assert_honest(path, mutants_of_bytes(content, count, seed), lambda: data.load(read, "train").tensor())


def fuzz_checkpoint(file: str, count: int, seed: int, tmp_path: Path) -> None:
    """Assert that a checkpoint is imported or refused, whatever it holds; refused, it leaves nothing behind."""
    path, number = tmp_path / file, itertools.count()

    def act() -> None:
        out = tmp_path / f"model-{next(number)}"
        try:
            import_with(path, out, 4)
        except Exception:
            assert not out.exists()
            raise

    assert_honest(path, mutants_of_bytes(CHECKPOINTS[file], count, seed), act)


@pytest.mark.parametrize("name", DATA)
def test_a_mutant_of_data_is_read_or_refused(name: str, tmp_path: Path) -> None:
    """Some hundred mutants of each kind of file."""
    fuzz_data(name, FEW, 0, tmp_path)


@pytest.mark.parametrize("file", CHECKPOINTS)
def test_a_mutant_of_a_checkpoint_is_imported_or_refused(file: str, tmp_path: Path) -> None:
    """Some dozen mutants of each format: each that is accepted is a whole import."""
    fuzz_checkpoint(file, FEW // 4, 0, tmp_path)


def settings_cases(tmp_path: Path) -> Iterator[tuple[Path, Any, Callable[[], object]]]:
    """Yield files beside a checkpoint, and how they are read."""
    path = tmp_path / "b.safetensors"
    path.write_bytes(save(foreign_names.huggingface(random_model(PLAIN))))
    number = itertools.count()

    def imported() -> None:
        import_with(path, tmp_path / f"model-{next(number)}", None)

    config = {"num_attention_heads": 4, "hidden_act": "gelu", "layer_norm_eps": 1e-12}
    yield tmp_path / "config.json", config | {"id2label": {str(i): f"c{i}" for i in range(5)}}, imported
    names = tmp_path / "names.json"
    yield names, {"norm.weight": "n", "blocks.{l}.attn.qkv.bias": ["q", "k", "v"]}, lambda: read_names(names)
    shard = tmp_path / "one.safetensors"
    shard.write_bytes(save(STATE))
    index = tmp_path / "model.safetensors.index.json"
    weight_map = dict.fromkeys(STATE, shard.name)
    yield (
        index,
        {"metadata": {}, "weight_map": weight_map},
        lambda: import_with(index, tmp_path / f"model-{next(number)}", 4),
    )


def test_mutants_of_files_beside_a_checkpoint(tmp_path: Path) -> None:
    """A config.json, a map of names and an index of shards."""
    for path, content, act in settings_cases(tmp_path):
        named = tmp_path if path.name != "names.json" else path
        assert_honest(path, mutants_of_document(content, FEW // 4), act, named)
        path.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("name", DATA)
def test_thousands_of_mutants_of_data(name: str, tmp_path: Path) -> None:
    """Other mutants."""
    fuzz_data(name, MANY, 1, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("file", CHECKPOINTS)
def test_thousands_of_mutants_of_checkpoints(file: str, tmp_path: Path) -> None:
    """Other mutants."""
    fuzz_checkpoint(file, MANY, 1, tmp_path)


@pytest.mark.parametrize("kind", ["gif", "bmp", "jpeg", "tiff", "webp", "ppm"])
def test_mutants_of_other_images(kind: str, tmp_path: Path) -> None:
    """Readers of every format end in an image or a sentence."""
    content = saved(lambda file: Image.new("RGB", (SIZE, SIZE), (9, 8, 7)).save(file, kind))
    path = tmp_path / f"a.{kind}"
    assert_honest(path, mutants_of_bytes(content, FEW // 2), lambda: decode_image(path, path, "a test"))
