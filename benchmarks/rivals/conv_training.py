"""Training of convolutional networks by the project's own loop, from labels alone; finished ones are kept."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from benchmarks.accuracy.store import read_json, write_json
from benchmarks.rivals.networks import ConvNet
from benchmarks.rivals.settings import LEARNING_RATE
from planner.executor.train_whole import LabelSmoothingLoss
from planner.network import data
from planner.network.distillation_data import NUM_COPIES, DistillationData, draw_moves
from planner.network.training import Epoch, Schedule, TrainingTask, train
from planner.schema import ModelCard
from planner.schema.base import write_bytes


def labelled_data(card: ModelCard, per_class: int | None, num_copies: int = NUM_COPIES) -> DistillationData:
    """Return the training images of a card in jittered copies as the whole model's, without a teacher."""
    samples = data.load(card, "train", per_class)
    moves = draw_moves(len(samples), data.Jitter.of(card.training), 0, num_copies)
    nothing = torch.empty(*moves.shape[:2], 0)
    return DistillationData(samples.images, samples.labels, moves, nothing, nothing)


def from_scratch(name: str, network: ConvNet, card: ModelCard, training: DistillationData, epochs: int) -> TrainingTask:
    """Return the training of a network as a whole model's: all images are for training, and all epochs are run."""
    record = card.training
    assert record is not None
    schedule = Schedule(epochs, record.batch_size, LEARNING_RATE, record.weight_decay)
    none = training.take(torch.arange(0))
    return TrainingTask(name, network, LabelSmoothingLoss(record.label_smoothing), training, none, schedule, 0)


def trained(make: Callable[[], TrainingTask], network: ConvNet, path: Path) -> int:
    """Train a network in place, unless that was done: then read its weights. One that was stopped goes on.

    Args:
        make: Makes the training of the network.
        network: The network.
        path: File of its weights.

    Returns:
        Number of images that it has learned from, all epochs together.
    """
    seen = path.with_suffix(".json")
    if not seen.exists():
        task, state, epochs = make(), path.with_suffix(".state"), list[Epoch]()
        train(task, state, epochs.append)
        write_bytes(path, save(network.state_dict()))
        # The first is the start.
        write_json(seen, (len(epochs) - 1) * len(task.data))
        state.unlink(missing_ok=True)
    network.load_state_dict(load_file(path))
    network.eval()
    return int(read_json(seen))
