"""Getting accuracy back after the cut: retrain each sub-model, then train the fusion.

Style of ED-ViT (arXiv 2410.11650): class-wise sub-models with an "other" class learn from the
whole model; then, with the sub-models frozen, a small MLP learns to answer from all features.

Legend: B images, K jittered copies of the training images, D devices, F embed dims of all
devices together, C classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from planner.network.data import Images, Jitter, Samples
from planner.network.distil import distillation_loss, soft_loss
from planner.network.evaluate import batched
from planner.network.fusion import Fusion
from planner.network.training import Recipe, fit
from planner.network.vit import VisionTransformer

# What plans are executed with, and what the profiler's probes are therefore made with.
RETRAIN = Recipe(epochs=20, learning_rate=2e-3)
FUSE = Recipe(epochs=40, learning_rate=2e-3)

NUM_COPIES = 8
TEMPERATURE = 2.0

# How often a device is left out while the fusion is trained, so that a lost one costs less.
_DROPPED = 0.1


@dataclass(frozen=True)
class Lessons:
    """What the sub-models learn from: jittered copies of the images, and the whole model's logits."""

    images: Tensor  # (K, B, ch, H, W)
    labels: Tensor  # (B,)
    teacher: Tensor  # (K, B, C)


def prepare_lessons(whole: VisionTransformer, samples: Samples, jitter: Jitter, seed: int) -> Lessons:
    """Draw the copies and ask the whole model about them."""
    images = copies(samples, jitter, torch.Generator().manual_seed(seed))
    teacher = torch.stack([batched(whole, copy) for copy in images])
    return Lessons(images, samples.labels, teacher)


def copies(samples: Samples, jitter: Jitter, generator: torch.Generator) -> Tensor:
    """Return the images as they are and jittered, (K, B, ch, H, W); once, if the jitter moves nothing."""
    plain = samples.tensor()
    count = NUM_COPIES if jitter.moves else 1
    return torch.stack([plain, *(jitter(plain, generator) for _ in range(count - 1))])


def retrain(
    sub_model: VisionTransformer,
    own: Sequence[int],
    lessons: Lessons,
    recipe: Recipe,
    seed: int,
    checkpoint: Path | None = None,
    on_epoch: Callable[[], None] = lambda: None,
) -> None:
    """Train a sub-model in place, by distillation from the whole model.

    Args:
        sub_model: What was cut out of the whole model.
        own: The classes it answers for, as indices.
        lessons: Images and the whole model's answers.
        recipe: How to train.
        seed: Of this sub-model.
        checkpoint: Where to keep the state after each epoch.
        on_epoch: Called after each epoch.
    """
    mask = torch.zeros(lessons.teacher.shape[-1], dtype=torch.bool)
    mask[list(own)] = True

    def loss(batch: Tensor, generator: torch.Generator) -> Tensor:
        copy = torch.randint(len(lessons.images), (len(batch),), generator=generator)
        student = sub_model(lessons.images[copy, batch])
        return distillation_loss(student, lessons.teacher[copy, batch], lessons.labels[batch], mask, TEMPERATURE)

    fit(sub_model, loss, len(lessons.labels), recipe, seed, checkpoint, on_epoch)


def features(sub_models: Sequence[VisionTransformer], images: Images) -> Tensor:
    """Return the features of all sub-models side by side, (B, F)."""
    return torch.cat([batched(model.features, images) for model in sub_models], dim=1)


def train_fusion(
    sub_models: Sequence[VisionTransformer],
    lessons: Lessons,
    hidden: int,
    recipe: Recipe,
    seed: int,
    checkpoint: Path | None = None,
    on_epoch: Callable[[], None] = lambda: None,
) -> Fusion:
    """Train the fusion of frozen sub-models on labels and the whole model's answers.

    Args:
        sub_models: In the order of the devices.
        lessons: Images and the whole model's answers.
        hidden: Hidden units of the fusion.
        recipe: How to train.
        seed: Of the fusion.
        checkpoint: Where to keep the state after each epoch.
        on_epoch: Called after each epoch.
    """
    known = torch.stack([features(sub_models, copy) for copy in lessons.images])  # (K, B, F)
    generator = torch.Generator().manual_seed(seed)
    fusion = Fusion([m.shape.embed_dim for m in sub_models], hidden, lessons.teacher.shape[-1])
    with torch.no_grad():
        for layer in (fusion.fc1, fusion.fc2):
            layer.weight.normal_(0, layer.in_features**-0.5, generator=generator)
            layer.bias.zero_()
        fusion.standardise(known.flatten(0, 1))

    def loss(batch: Tensor, generator: torch.Generator) -> Tensor:
        copy = torch.randint(len(known), (len(batch),), generator=generator)
        present = (torch.rand(len(batch), len(sub_models), generator=generator) >= _DROPPED).float()
        logits = fusion(known[copy, batch], present)
        hard = F.cross_entropy(logits, lessons.labels[batch])
        return 0.5 * hard + 0.5 * soft_loss(logits, lessons.teacher[copy, batch], TEMPERATURE)

    fit(fusion, loss, len(lessons.labels), recipe, seed, checkpoint, on_epoch)
    return fusion
