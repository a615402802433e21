"""Training data of distillation: images, each in a few jittered copies, and the teacher's outputs for every copy.

The teacher runs once over each copy. Copies are not stored: they are computed in each batch, from their moves. Nor is
anything that grows with images times classes, where there are many: logits are then made anew in each batch.

Legend: K copies, B images, b images of a batch, ch channels, H height, W width, C classes, P pooled tokens, E the
teacher's embed dim, F embed dims of all devices together.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from planner.network.compute_device import in_mixed_precision
from planner.network.data import Images, Jitter, Samples
from planner.network.data.jitter import move_images
from planner.network.evaluation import apply_in_batches
from planner.network.lazy_logits import LazyLogits, saves_memory
from planner.network.vit import VisionTransformer

# Of each image, itself included, where the jitter changes anything.
NUM_COPIES = 8
# Of each class's images: enough to decide when to stop.
VALIDATION_SHARE = 0.1


class MixedLabels(NamedTuple):
    """Labels of the other images of mixtures, and their shares."""

    labels: Tensor  # (b,)
    shares: Tensor  # (b,)


class Batch(NamedTuple):
    """Inputs of a loss."""

    inputs: Tensor  # images (b, ch, H, W), or features (b, F)
    labels: Tensor  # (b,)
    teacher_logits: Tensor  # (b, C)
    teacher_features: Tensor  # (b, E)
    # Where images are mixtures; these have no teacher's outputs: (b, 0).
    mixed: MixedLabels | None = None

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device."""
        inputs, labels, logits, features = (tensor.to(device, non_blocking=True) for tensor in self[:4])
        mixed = self.mixed and MixedLabels(*(tensor.to(device, non_blocking=True) for tensor in self.mixed))
        return Batch(inputs, labels, logits, features, mixed)

    def label_shares(self, num_classes: int) -> Tensor:
        """Return the share of each class in the label of each image, (b, C)."""
        first = F.one_hot(self.labels, num_classes).float()
        if self.mixed is None:
            return first
        other = F.one_hot(self.mixed.labels, num_classes).float()
        return first.lerp(other, self.mixed.shares[:, None].float())


class BatchSource(Protocol):
    """Data from which a training draws its batches."""

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """Return the samples at these indices, of each a copy as the generator draws it."""


@dataclass(frozen=True)
class DistillationData:
    """Images, the moves of their copies, and the teacher's logits and features for each copy."""

    images: Images  # (B, ch, H, W)
    labels: Tensor  # (B,)
    moves: Tensor  # (K, B, 4)
    teacher_logits: Tensor | LazyLogits  # (K, B, C)
    teacher_features: Tensor  # (K, B, E)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """Return images, each in one of its copies."""
        copy = torch.randint(len(self.moves), (len(indices),), generator=generator)
        images = moved_copies(self.images[indices], self.moves[copy, indices])
        logits, features = self.teacher_logits[copy, indices], self.teacher_features[copy, indices]
        return Batch(images, self.labels[indices], logits, features)

    def take(self, indices: Tensor) -> "DistillationData":
        """Return the data of the images at these indices."""
        samples, logits = Samples(self.images, self.labels).take(indices), self.teacher_logits
        return replace(
            self,
            images=samples.images,
            labels=samples.labels,
            moves=self.moves[:, indices],
            teacher_logits=logits.take(indices) if isinstance(logits, LazyLogits) else logits[:, indices],
            teacher_features=self.teacher_features[:, indices],
        )


@dataclass(frozen=True)
class FeatureData:
    """Training data of a fusion: the features that frozen sub-models extract from each copy of the images."""

    data: DistillationData
    features: Tensor  # (K, B, F)

    def __len__(self) -> int:
        return len(self.data)

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """Return features, each of one of an image's copies."""
        copy = torch.randint(len(self.features), (len(indices),), generator=generator)
        logits, features = self.data.teacher_logits[copy, indices], self.data.teacher_features[copy, indices]
        return Batch(self.features[copy, indices], self.data.labels[indices], logits, features)


def split_validation(
    data: DistillationData, share: float = VALIDATION_SHARE, seed: int = 0
) -> tuple[DistillationData, DistillationData]:
    """Return training and validation data: the same share of each class is for validation, of a small one perhaps none.

    Args:
        data: Data to split; at least one image of every class is for training.
        share: Share of each class's images that is for validation.
        seed: Seed of the draw.
    """
    generator = torch.Generator().manual_seed(seed)
    is_validation = torch.zeros(len(data), dtype=torch.bool)
    for c in data.labels.unique():
        of_class = torch.where(data.labels == c)[0]
        count = min(round(share * len(of_class)), len(of_class) - 1)
        is_validation[of_class[torch.randperm(len(of_class), generator=generator)[:count]]] = True
    return data.take(torch.where(~is_validation)[0]), data.take(torch.where(is_validation)[0])


def make_distillation_data(
    teacher: VisionTransformer,
    samples: Samples,
    jitter: Jitter,
    seed: int,
    num_copies: int = NUM_COPIES,
    on_copy: Callable[[int, int], None] = lambda done, total: None,
) -> DistillationData:
    """Draw the moves of the copies and run the teacher over each; the first copy is the image as it is.

    Args:
        teacher: Network whose logits and features are learned.
        samples: The images.
        jitter: Reach of the moves; if it changes nothing, there is one copy.
        seed: Seed of the moves.
        num_copies: Largest number of copies.
        on_copy: Called with the copies done and their number, before the first and after each.
    """
    moves = draw_moves(len(samples), jitter, seed, num_copies)
    return _taught(samples, moves, teacher, on_copy)


def taught_by(data: DistillationData, teacher: VisionTransformer) -> DistillationData:
    """Return the data with another teacher's outputs."""
    if len(data) == 0:
        return data
    return _taught(Samples(data.images, data.labels), data.moves, teacher)


def made_from_pooled(samples: Samples, moves: Tensor, teacher: VisionTransformer, pooled: Tensor) -> DistillationData:
    """Return distillation data from the teacher's pooled tokens of all copies, (K, B, P, E)."""
    # The mean over one token is that token: no second copy.
    features = pooled.mean(2) if teacher.shape.distilled else pooled[:, :, 0]
    if saves_memory(teacher):
        return DistillationData(samples.images, samples.labels, moves, LazyLogits.of(teacher, pooled), features)
    logits = torch.stack([apply_in_batches(teacher.classify, of_copy) for of_copy in pooled])
    return DistillationData(samples.images, samples.labels, moves, logits, features)


def _taught(
    samples: Samples,
    moves: Tensor,
    teacher: VisionTransformer,
    on_copy: Callable[[int, int], None] = lambda done, total: None,
) -> DistillationData:
    shape = teacher.shape
    pooled = torch.empty(*moves.shape[:2], shape.num_pooled_tokens, shape.embed_dim)
    on_copy(0, len(moves))
    for done, (of_copy, its_moves) in enumerate(zip(pooled, moves, strict=True), start=1):
        of_copy.copy_(apply_to_copies(in_mixed_precision(teacher, teacher.pooled), samples.images, its_moves))
        on_copy(done, len(moves))
    return made_from_pooled(samples, moves, teacher, pooled)


def copies_for(epochs: float) -> int:
    """Return how many copies of each image a training needs: an image is seen about once an epoch."""
    return min(NUM_COPIES, max(1, math.ceil(epochs)))


def draw_moves(count: int, jitter: Jitter, seed: int, num_copies: int = NUM_COPIES) -> Tensor:
    """Return the moves of this many images in each copy, (K, B, 4); those of the first copy are zero."""
    generator = torch.Generator().manual_seed(seed)
    moves = torch.zeros(num_copies if jitter.is_active else 1, count, 4)
    for copy in moves[1:]:
        copy.copy_(jitter.draw(count, generator))
    return moves


def extract_features(sub_models: Sequence[VisionTransformer], data: DistillationData) -> FeatureData:
    """Run frozen sub-models, in the order of the devices, over each copy of the images."""
    if len(data) == 0:
        return FeatureData(data, torch.zeros(len(data.moves), 0, sum(m.shape.embed_dim for m in sub_models)))
    copies = []
    for moves in data.moves:
        features = [
            apply_to_copies(in_mixed_precision(model, model.features), data.images, moves) for model in sub_models
        ]
        copies.append(torch.cat(features, dim=1))
    return FeatureData(data, torch.stack(copies))


def moved_copies(images: Tensor, moves: Tensor) -> Tensor:
    """Return images (b, ch, H, W) as moved; as they are, bit for bit, where nothing moves."""
    return move_images(images, moves) if moves.any() else images


def apply_to_copies(function: Callable[[Tensor], Tensor], images: Images, moves: Tensor) -> Tensor:
    """Return a function's values for all images as moved, a batch at a time, without gradients."""
    return apply_in_batches(lambda at: function(moved_copies(images[at], moves[at])), torch.arange(len(images)))
