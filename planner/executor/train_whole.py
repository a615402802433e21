"""Train the whole model of a card again: `python -m planner.executor.train_whole CARD`.

The card holds the schedule; weights, their hash and the accuracy are written beside it. A run that was stopped resumes
after the last finished epoch.
"""

import argparse
import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import Progress
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from planner.errors import InputError
from planner.network import data
from planner.network.checkpoint import WEIGHTS, whole_shape
from planner.network.data import Jitter, Samples
from planner.network.distillation_data import Batch
from planner.network.evaluation import accuracy
from planner.network.losses import Loss
from planner.network.training import Schedule, TrainingTask, train
from planner.network.vit import VisionTransformer, initialise
from planner.schema import ModelCard, read_document, write_document
from planner.schema.base import write_bytes

STATE = "training.safetensors"


class LabelSmoothingLoss(Loss):
    """Cross-entropy with label smoothing: a share of each label is spread over all classes."""

    def __init__(self, smoothing: float) -> None:
        super().__init__()
        self.smoothing = smoothing

    def forward(self, module: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        return F.cross_entropy(module(batch.inputs), batch.labels, label_smoothing=self.smoothing)


@dataclass(frozen=True)
class JitteredSamples:
    """Images that are moved anew each time, without a teacher."""

    samples: Samples
    jitter: Jitter

    def __len__(self) -> int:
        return len(self.samples)

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """Return images, each moved as the generator draws it."""
        images, no_teacher = self.jitter(self.samples.images[indices], generator), torch.empty(len(indices), 0)
        return Batch(images, self.samples.labels[indices], no_teacher, no_teacher)


def train_whole(card_path: Path, progress: Progress) -> ModelCard:
    """Train a card's model from scratch, write its weights and the updated card, and return the card.

    Raises:
        InputError: If the card has no training or no data.
    """
    card = read_document(card_path, ModelCard)
    training = card.training
    if training is None:
        raise InputError(f"{card_path}: must say under `training` how the weights are made, got nothing.")
    located = card.with_paths_in(card_path.parent)
    samples, test = data.load(located, "train"), data.load_stored_test(located)
    model = VisionTransformer(whole_shape(card))
    initialise(model, torch.Generator().manual_seed(training.seed))
    jitter = Jitter.of(training)
    # All images are for training: without validation samples, all epochs are run.
    no_validation = JitteredSamples(samples.take(torch.arange(0)), jitter)
    schedule = Schedule(training.epochs, training.batch_size, training.learning_rate, training.weight_decay)
    loss = LabelSmoothingLoss(training.label_smoothing)
    train_data = JitteredSamples(samples, jitter)
    task = TrainingTask(card.model, model, loss, train_data, no_validation, schedule, training.seed)
    progress_bar = progress.add_task(f"train {card.model}", total=training.epochs)
    state = card_path.parent / STATE
    train(task, state, lambda epoch: progress.update(progress_bar, completed=epoch.epoch))
    content = save(model.state_dict())
    measured = {
        "weights": WEIGHTS,
        "parameter_names": "timm",
        "origin": None,
        "weights_sha256": hashlib.sha256(content).hexdigest(),
        "accuracy": {"train": round(accuracy(model, samples), 4), "test": round(accuracy(model, test), 4)},
    }
    write_bytes(card_path.parent / WEIGHTS, content)
    card = card.replace(**measured)
    write_document(card_path, card)
    state.unlink()
    return card


def _main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("card", type=Path)
    torch.set_num_threads(1)
    with Progress() as progress:
        card = train_whole(parser.parse_args().card, progress)
    assert card.accuracy is not None
    print(f"{card.model}: accuracy {card.accuracy['test']:.4f} on the whole test part")


if __name__ == "__main__":
    _main()
