"""Models that are measured, and their images: the shipped digits model, and a small one for Fashion-MNIST.

The Fashion-MNIST model is trained once, on some of the training images, and cached with its training state under
build/, from which a stopped run continues.
"""

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.data_sets import ROOT, data_folder
from planner.network import data
from planner.network.checkpoint import load_model
from planner.network.data import Jitter, Samples
from planner.network.distillation_data import make_distillation_data
from planner.network.losses import CrossEntropyLoss
from planner.network.training import Schedule, TrainingTask, train
from planner.network.vit import Shape, VisionTransformer, initialise

WORK = ROOT / "build" / "bench-importance"

_SHAPE = Shape(28, 4, 1, 10, embed_dim=96, head_dim=16, num_heads=(6,) * 4, hidden_dim=(384,) * 4)
_SCHEDULE = Schedule(epochs=6, batch_size=64, learning_rate=1e-3)
_TRAINED = 20_000
# Importance is measured on images that the model was trained on, losses on images of the test part.
_MEASURED_PER_CLASS = 400
_TESTED_PER_CLASS = 60
_MEAN, _STD = 0.286, 0.353


@dataclass(frozen=True)
class Subject:
    """Model, with the images for its importance (`train`) and for its losses (`test`)."""

    name: str
    model: VisionTransformer
    train: Samples
    test: Samples


def subjects() -> list[Subject]:
    """Return the models, without that of Fashion-MNIST if its data set is missing."""
    available = [_digits()]
    data_sets = data_folder()
    if data_sets is not None and (data_sets / "fashion-mnist").is_dir():
        available.append(_fashion(data_sets / "fashion-mnist"))
    return available


def _digits() -> Subject:
    card, model = load_model("digits-vit")
    return Subject("digits", model, data.load(card, "train"), data.load(card, "test"))


def _fashion(folder: Path) -> Subject:
    samples, test = (_samples(folder, part) for part in ("train", "t10k"))
    samples = samples.take(torch.arange(_TRAINED))
    model = VisionTransformer(_SHAPE)
    initialise(model, torch.Generator().manual_seed(0))

    # From labels alone, and from all images: the model is no teacher, and there are no validation samples.
    train_data = make_distillation_data(model, samples, Jitter(0.0, 0.0), seed=0)
    no_validation = train_data.take(torch.arange(0))
    training = TrainingTask("fashion-mnist", model, CrossEntropyLoss(), train_data, no_validation, _SCHEDULE, seed=0)
    train(training, WORK / "fashion-mnist.safetensors")
    return Subject("Fashion-MNIST", model, _first(samples, _MEASURED_PER_CLASS), _first(test, _TESTED_PER_CLASS))


def _first(samples: Samples, per_class: int) -> Samples:
    chosen = [torch.where(samples.labels == c)[0][:per_class] for c in range(int(samples.labels.max()) + 1)]
    return samples.take(torch.cat(chosen).sort().values)


def _samples(folder: Path, part: str) -> Samples:
    pixels = _idx(folder / f"{part}-images-idx3-ubyte.gz", header=16).reshape(-1, 1, 28, 28)
    images = (torch.from_numpy(pixels.astype(np.float32)) / 255 - _MEAN) / _STD
    return Samples(images, torch.from_numpy(_idx(folder / f"{part}-labels-idx1-ubyte.gz", header=8).astype(np.int64)))


def _idx(path: Path, header: int) -> NDArray[np.uint8]:
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)
