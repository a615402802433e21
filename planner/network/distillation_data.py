"""What sub-models learn from: images, each in a few jittered copies, and what the teacher says of every copy.

The teacher is asked once. Copies are not held but made when they are asked for, from how each is moved.

Legend: K copies, B images, b images of a batch, ch channels, H height, W width, C classes, E the teacher's embed
dim, F embed dims of all devices together.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from planner.network.data import Images, Jitter, Samples
from planner.network.data.jitter import move_images
from planner.network.evaluation import batched
from planner.network.vit import VisionTransformer

# Of each image, itself included, where the jitter moves anything.
NUM_COPIES = 8
# Of each class's images: enough to say when to stop.
HELD_SHARE = 0.1


class Batch(NamedTuple):
    """What an objective is given."""

    inputs: Tensor  # images (b, ch, H, W), or features (b, F)
    labels: Tensor  # (b,)
    answers: Tensor  # the teacher's logits, (b, C)
    tokens: Tensor  # the teacher's features, (b, E)

    def to(self, device: torch.device) -> "Batch":
        """Return the same on a device."""
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in self))


class BatchSource(Protocol):
    """What a training draws its batches from."""

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """Return the samples at these indices, of each a copy as the generator draws it."""


@dataclass(frozen=True)
class DistillationData:
    """Images, how each copy of them is moved, and the teacher's logits and features for it."""

    images: Images  # (B, ch, H, W)
    labels: Tensor  # (B,)
    moves: Tensor  # (K, B, 4)
    answers: Tensor  # (K, B, C)
    tokens: Tensor  # (K, B, E)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """Return images, each in one of its copies."""
        copy = torch.randint(len(self.moves), (len(indices),), generator=generator)
        images = moved_copies(self.images[indices], self.moves[copy, indices])
        return Batch(images, self.labels[indices], self.answers[copy, indices], self.tokens[copy, indices])

    def take(self, indices: Tensor) -> "DistillationData":
        """Return the lessons of these images alone."""
        samples = Samples(self.images, self.labels).take(indices)
        at = {"moves": self.moves[:, indices], "answers": self.answers[:, indices], "tokens": self.tokens[:, indices]}
        return replace(self, images=samples.images, labels=samples.labels, **at)


@dataclass(frozen=True)
class FeatureData:
    """The features that frozen sub-models find in each copy of the images: what a fusion learns from."""

    lessons: DistillationData
    features: Tensor  # (K, B, F)

    def __len__(self) -> int:
        return len(self.lessons)

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """Return features, each of one of an image's copies."""
        copy = torch.randint(len(self.features), (len(indices),), generator=generator)
        known = self.lessons
        answers, tokens = known.answers[copy, indices], known.tokens[copy, indices]
        return Batch(self.features[copy, indices], known.labels[indices], answers, tokens)


def split_validation(
    lessons: DistillationData, share: float = HELD_SHARE, seed: int = 0
) -> tuple[DistillationData, DistillationData]:
    """Return the lessons to learn and those held out: of each class the same share, of a small one perhaps none.

    Args:
        lessons: What to split; of every class something is learned.
        share: Held out, of each class's images.
        seed: For who is held out.
    """
    generator = torch.Generator().manual_seed(seed)
    out = torch.zeros(len(lessons), dtype=torch.bool)
    for c in lessons.labels.unique():
        of_class = torch.where(lessons.labels == c)[0]
        count = min(round(share * len(of_class)), len(of_class) - 1)
        out[of_class[torch.randperm(len(of_class), generator=generator)[:count]]] = True
    return lessons.take(torch.where(~out)[0]), lessons.take(torch.where(out)[0])


def distillation_data(
    teacher: VisionTransformer,
    samples: Samples,
    jitter: Jitter,
    seed: int,
    num_copies: int = NUM_COPIES,
    on_copy: Callable[[int, int], None] = lambda done, total: None,
) -> DistillationData:
    """Draw how the copies are moved and ask the teacher about each; the first copy is the image as it is.

    Args:
        teacher: Whose answers are learned.
        samples: The images.
        jitter: How far copies are moved; if it moves nothing, one copy is enough.
        seed: Of the moves.
        num_copies: How many there are at most.
        on_copy: Called with the copies done and their number, before the first and after each.
    """
    moves = draw_moves(len(samples), jitter, seed, num_copies)
    answers, tokens = [], []
    on_copy(0, len(moves))
    for done, copy in enumerate(moves, start=1):
        prefix = over_images(teacher.prefix, samples.images, copy)
        answers.append(batched(teacher.classify, prefix))
        tokens.append(prefix.mean(1))
        on_copy(done, len(moves))
    return DistillationData(samples.images, samples.labels, moves, torch.stack(answers), torch.stack(tokens))


def draw_moves(count: int, jitter: Jitter, seed: int, num_copies: int = NUM_COPIES) -> Tensor:
    """Return how so many images are moved in each copy, (K, B, 4); the first copy is as it is."""
    generator = torch.Generator().manual_seed(seed)
    moves = torch.zeros(num_copies if jitter.moves else 1, count, 4)
    for copy in moves[1:]:
        copy.copy_(jitter.draw(count, generator))
    return moves


def find_features(sub_models: Sequence[VisionTransformer], lessons: DistillationData) -> FeatureData:
    """Ask frozen sub-models, in the order of the devices, for their features of each copy."""
    if len(lessons) == 0:
        return FeatureData(lessons, torch.zeros(len(lessons.moves), 0, sum(m.shape.embed_dim for m in sub_models)))
    copies = []
    for moves in lessons.moves:
        found = [over_images(model.features, lessons.images, moves) for model in sub_models]
        copies.append(torch.cat(found, dim=1))
    return FeatureData(lessons, torch.stack(copies))


def moved_copies(images: Tensor, moves: Tensor) -> Tensor:
    """Return images (b, ch, H, W) as moved; as they are, bit for bit, where nothing moves."""
    return move_images(images, moves) if moves.any() else images


def over_images(function: Callable[[Tensor], Tensor], images: Images, moves: Tensor) -> Tensor:
    """Return a function's values for all images as moved, a batch at a time, without gradients."""
    return batched(lambda at: function(moved_copies(images[at], moves[at])), torch.arange(len(images)))
