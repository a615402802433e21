"""Losses: what a sub-model learns from the whole model.

A sub-model answers for its own classes and for "other", all foreign classes together. It keeps
the whole model's head layer, so "other" needs no output of its own: its probability is the sum
of the foreign ones. Labels are learned in these terms; the whole model's soft answers are learned
for all classes, since the fusion gains from features that tell foreign classes apart (five
sub-models of two digits each at a quarter of the retention: 39 errors instead of 77).

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
    """Return half cross-entropy with own-or-other labels, half `soft_loss` over all classes.

    Args:
        student: Logits (B, C).
        teacher: Logits (B, C) of the whole model.
        labels: (B,).
        own: (C,) bool.
        temperature: Of the soft answers.

    Source:
        "Other" as in EC-SNN (IJCAI 2024).
    """
    hard = F.nll_loss(log_own_and_other(student, own), own_and_other_labels(labels, own))
    return 0.5 * hard + 0.5 * soft_loss(student, teacher, temperature)


def soft_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return KL(teacher || student) of softened answers, scaled to keep its gradient's size.

    Args:
        student: Logits (B, C).
        teacher: Logits (B, C).
        temperature: Divides both.

    Source:
        Hinton et al., arXiv 1503.02531.
    """
    learned, taught = ((logits / temperature).log_softmax(1) for logits in (student, teacher))
    return temperature**2 * F.kl_div(learned, taught, reduction="batchmean", log_target=True)
