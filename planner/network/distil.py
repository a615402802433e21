"""Losses: what a sub-model learns from the whole model.

A sub-model answers for its own classes and for "other", all foreign classes together. It keeps
the whole model's head layer, so "other" needs no output of its own: its probability is the sum
of the foreign ones.

Legend: B images, C classes, n own classes.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def log_own_and_other(logits: Tensor, own: Tensor) -> Tensor:
    """Return log probabilities (B, n + 1) of the own classes and of all others together.

    Args:
        logits: (B, C).
        own: Which classes are the sub-model's, (C,) bool. If all are, there is no other: (B, n).
    """
    log_p = logits.log_softmax(dim=1)
    if own.all():
        return log_p
    other = log_p[:, ~own].logsumexp(dim=1, keepdim=True)
    return torch.cat([log_p[:, own], other], dim=1)


def own_and_other_labels(labels: Tensor, own: Tensor) -> Tensor:
    """Return labels (B,) in the order of `log_own_and_other`."""
    position = torch.where(own, own.cumsum(0) - 1, own.sum())
    return position[labels]


def distillation_loss(student: Tensor, teacher: Tensor, labels: Tensor, own: Tensor, temperature: float) -> Tensor:
    """Return half cross-entropy with the labels, half KL(teacher || student) at a temperature.

    Args:
        student: Logits (B, C).
        teacher: Logits (B, C) of the whole model.
        labels: (B,).
        own: (C,) bool.
        temperature: Softens both; the KL is scaled by its square to keep its gradient's size.

    Source:
        Hinton et al., arXiv 1503.02531; "other" as in EC-SNN (IJCAI 2024).
    """
    hard = F.nll_loss(log_own_and_other(student, own), own_and_other_labels(labels, own))
    soft = F.kl_div(
        log_own_and_other(student / temperature, own),
        log_own_and_other(teacher / temperature, own),
        reduction="batchmean",
        log_target=True,
    )
    return 0.5 * hard + 0.5 * temperature**2 * soft
