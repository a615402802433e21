"""Some of the lessons: those of a sub-model's own classes, alone or among foreign ones."""

from collections.abc import Sequence

import torch

from planner.network.distillation_data import DistillationData


def own_samples(lessons: DistillationData, own: Sequence[int]) -> DistillationData:
    """Return the lessons of the own classes."""
    return lessons.take(torch.where(torch.isin(lessons.labels, torch.tensor(own)))[0])


def own_and_foreign_samples(lessons: DistillationData, own: Sequence[int], seed: int) -> DistillationData:
    """Return the lessons of the own classes and as many others, drawn at random, if there are so many."""
    mine = torch.isin(lessons.labels, torch.tensor(own))
    foreign = torch.where(~mine)[0]
    drawn = foreign[torch.randperm(len(foreign), generator=torch.Generator().manual_seed(seed))][: int(mine.sum())]
    return lessons.take(torch.cat([torch.where(mine)[0], drawn]).sort().values)


def equivalent_epochs(epochs: int, lessons: DistillationData, some: DistillationData) -> int:
    """Return how many epochs of some of the lessons show as many images as epochs of all."""
    return max(1, round(epochs * len(lessons) / max(1, len(some))))
