"""Convolutional rows: one network that is not split, and one whose filters are pruned by class for each device.

Each device's network is cut from a wider one that was trained on all classes, keeps the filters that matter most to
its own, and is retrained on these and "other", of which it sees as many images. An MLP then learns all classes from the
features of all, side by side: the steps of ED-ViT's recipe, which come from EC-SNN.

Legend: K copies, B images, F features of all devices together.
"""

import time
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.accuracy.execution import Outcome
from benchmarks.accuracy.store import cached, code_hash, result_key
from benchmarks.rivals.conv_training import from_scratch, labelled_data, trained
from benchmarks.rivals.filters import filter_importance, keep_filters, most_important
from benchmarks.rivals.networks import ConvNet, ConvShape, initialised
from benchmarks.rivals.settings import PRUNED_FROM, RETRAINING_RATE, Effort
from planner.network import data
from planner.network.data import Samples
from planner.network.distillation_data import (
    DistillationData,
    FeatureData,
    apply_to_copies,
    copies_for,
    split_validation,
)
from planner.network.evaluation import accuracy_by_class, apply_in_batches, top1_accuracy
from planner.network.fusion import Fusion, fresh_fusion
from planner.network.losses import CrossEntropyLoss, OwnOrOtherLoss
from planner.network.recipes.class_samples import equivalent_epochs, own_and_foreign_samples
from planner.network.recipes.recovery_task import fusion_schedule
from planner.network.training import Schedule, TrainingTask, train
from planner.schema import ModelCard

_CODE = (
    *(f"benchmarks/rivals/{name}.py" for name in ("networks", "filters", "conv_training", "conv_rows", "settings")),
    *(f"planner/network/{name}.py" for name in ("training*", "fusion", "losses", "distillation_*", "data/*")),
)


@dataclass(frozen=True)
class ConvOutcome:
    """Outcome of a row, and the images from scratch of the network that its own were cut from."""

    outcome: Outcome
    scratch_images: int


class TimeUpError(Exception):
    """The time is up, and a training is still to be started."""


class ConvRows:
    """Convolutional rows of a subject; what is finished is read from the folder.

    After `until`, on the clock of `time.monotonic`, no training is started: `TimeUpError` is raised instead.
    """

    def __init__(self, card: ModelCard, effort: Effort, hidden: int, folder: Path, until: float | None) -> None:
        self.card, self.effort, self.hidden, self.until = card, effort, hidden, until
        key = result_key(card.weights_sha256, asdict(effort), hidden, code_hash(_CODE))
        self.folder = folder / f"convolutional-{key}"

    def unsplit(self, shape: ConvShape) -> ConvOutcome:
        """Return the outcome of one network, trained from scratch on all classes."""
        network = initialised(shape, self.effort.seed)
        images = self._from_scratch(network, self.effort.epochs)
        logits = apply_in_batches(network, self._test.images)
        return ConvOutcome(self._outcome(logits, {}, {}), images)

    def split(self, shape: ConvShape, num_devices: int) -> ConvOutcome:
        """Return the outcome of networks of a shape, one for each device, cut from a wider one and fused."""
        wide = initialised(replace(shape, filters=tuple(PRUNED_FROM * f for f in shape.filters)), seed=self.effort.seed)
        images = self._from_scratch(wide, self.effort.wide_epochs)
        outcome = cached(
            self.folder / f"split-{_key(shape)}.json", lambda: asdict(self._split(wide, shape, num_devices))
        )
        return ConvOutcome(Outcome(**outcome), images)

    def _from_scratch(self, network: ConvNet, epochs: int) -> int:
        name = f"scratch-{_key(network.shape)}"

        def make() -> TrainingTask:
            self._check_time()
            return from_scratch(name, network, self.card, labelled_data(self.card, self.effort.per_class), epochs)

        return trained(make, network, self.folder / f"{name}.safetensors")

    def _check_time(self) -> None:
        if self.until is not None and time.monotonic() > self.until:
            raise TimeUpError

    def _split(self, wide: ConvNet, shape: ConvShape, num_devices: int) -> Outcome:
        subsets = class_subsets(shape.num_classes, num_devices, self.effort.seed)
        parts = [self._device_network(wide, shape, d, own) for d, own in enumerate(subsets)]
        networks = [network for network, _ in parts]
        fusion = self._fused(networks)
        features = torch.cat([apply_in_batches(network.features, self._test.images) for network in networks], dim=1)
        without = {}
        for d in range(num_devices):
            present = torch.ones(len(features), num_devices)
            present[:, d] = 0
            with torch.inference_mode():
                without[_device(d)] = top1_accuracy(fusion(features, present), self._test.labels)
        seen = {_device(d): images for d, (_, images) in enumerate(parts)}
        return self._outcome(apply_in_batches(fusion, features), without, seen)

    def _device_network(self, wide: ConvNet, shape: ConvShape, d: int, own: tuple[int, ...]) -> tuple[ConvNet, int]:
        """Return a device's network, cut and retrained, and the number of images that it was retrained on."""
        network = keep_filters(wide, most_important(filter_importance(wide, self._own_samples(own)), shape.filters))
        path = self.folder / f"{_device(d)}-{_key(shape)}.safetensors"
        return network, trained(lambda: self._retraining(network, d, own), network, path)

    def _retraining(self, network: ConvNet, d: int, own: tuple[int, ...]) -> TrainingTask:
        """Return the retraining of a device's network on its own classes and "other"."""
        self._check_time()
        seed, (all_data, all_validation) = self.effort.seed + d, self._data
        training, validation = (own_and_foreign_samples(part, own, seed) for part in (all_data, all_validation))
        epochs = equivalent_epochs(self.effort.retraining.epochs, all_data, training)
        schedule = Schedule(epochs, learning_rate=RETRAINING_RATE)
        loss = OwnOrOtherLoss(own, network.shape.num_classes)
        return TrainingTask(_device(d), network, loss, training, validation, schedule, seed)

    def _fused(self, networks: list[ConvNet]) -> Fusion:
        """Return a fusion trained on the features of frozen networks."""
        self._check_time()
        training, validation = (_features(networks, d) for d in self._data)
        dims, seed = [network.shape.filters[-1] for network in networks], self.effort.seed
        fusion = fresh_fusion(training.features.flatten(0, 1), dims, self.hidden, len(self.card.classes), seed)
        schedule = fusion_schedule(self.effort.retraining.epochs, RETRAINING_RATE)
        train(TrainingTask("fusion", fusion, CrossEntropyLoss(), training, validation, schedule, seed))
        return fusion

    @cached_property
    def _data(self) -> tuple[DistillationData, DistillationData]:
        """Training and validation data of retraining."""
        budget = self.effort.retraining
        return split_validation(labelled_data(self.card, budget.per_class, copies_for(budget.epochs)))

    @cached_property
    def _test(self) -> Samples:
        return data.load(self.card, "test")

    def _own_samples(self, own: tuple[int, ...]) -> Samples:
        samples = data.load(self.card, "train", self.effort.importance_images)
        return samples.take(torch.where(torch.isin(samples.labels, torch.tensor(own)))[0])

    def _outcome(self, logits: Tensor, without: dict[str, float], images: dict[str, int]) -> Outcome:
        labels = self._test.labels
        return Outcome(top1_accuracy(logits, labels), accuracy_by_class(logits, labels), without, images, 0.0)


def class_subsets(num_classes: int, num_devices: int, seed: int) -> list[tuple[int, ...]]:
    """Return class subsets of equal size, or nearly, drawn at random."""
    drawn = torch.randperm(num_classes, generator=torch.Generator().manual_seed(seed))
    return [tuple(sorted(drawn[d::num_devices].tolist())) for d in range(num_devices)]


def _device(d: int) -> str:
    return f"board-{d + 1}"


def _features(networks: list[ConvNet], samples: DistillationData) -> FeatureData:
    """Return the features of frozen networks, side by side, of each copy of the images."""
    copies = [
        torch.cat([apply_to_copies(network.features, samples.images, moves) for network in networks], dim=1)
        for moves in samples.moves
    ]
    return FeatureData(samples, torch.stack(copies))  # (K, B, F)


def _key(shape: ConvShape) -> str:
    return result_key(asdict(shape))
