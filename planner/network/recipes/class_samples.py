"""Subsets of the distillation data: the samples of a sub-model's own classes, alone or among foreign ones."""

from collections.abc import Sequence

import torch

from planner.network.distillation_data import DistillationData


def own_samples(data: DistillationData, own: Sequence[int]) -> DistillationData:
    """Return the samples of the own classes."""
    return data.take(torch.where(torch.isin(data.labels, torch.tensor(own)))[0])


def own_and_foreign_samples(data: DistillationData, own: Sequence[int], seed: int) -> DistillationData:
    """Return the samples of the own classes and as many others, drawn at random, if there are so many."""
    is_own = torch.isin(data.labels, torch.tensor(own))
    foreign = torch.where(~is_own)[0]
    drawn = foreign[torch.randperm(len(foreign), generator=torch.Generator().manual_seed(seed))][: int(is_own.sum())]
    return data.take(torch.cat([torch.where(is_own)[0], drawn]).sort().values)


def equivalent_epochs(epochs: float, data: DistillationData, subset: DistillationData) -> float:
    """Return the epochs over a subset that show as many images as these epochs over all data; whole ones beyond one."""
    equivalent = epochs * len(data) / max(1, len(subset))
    return equivalent if equivalent < 1 else round(equivalent)
