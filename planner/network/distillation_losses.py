"""Losses: what sub-models and their fusion learn from labels and from a teacher, mostly the whole model.

A sub-model answers for its own classes and for "other", all foreign classes together. It keeps
the whole model's head layer, so "other" needs no output of its own: its probability is the sum
of the foreign ones. Labels are learned in these terms; the whole model's soft answers are learned
for all classes, since the fusion gains from features that tell foreign classes apart (five
sub-models of two digits each at a quarter of the retention: 39 errors instead of 77).

Legend: B images, C classes, n own classes, N tokens, d dims of all heads together (student and teacher may differ).
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


def hard_loss(student: Tensor, teacher: Tensor, labels: Tensor, own: Tensor, smoothing: float) -> Tensor:
    """Return half cross-entropy with the labels, half with what the teacher thinks most likely, both smoothed.

    Only the own classes count: the labels must be among them.

    Args:
        student: Logits (B, C).
        teacher: Logits (B, C).
        labels: (B,).
        own: (C,) bool.
        smoothing: Share of each label that is spread over all own classes.

    Source:
        DEKD's L_cls: DeViT, arXiv 2309.05015; the teacher's part is DeiT's hard distillation, arXiv 2012.12877.
    """
    position = own.cumsum(0) - 1
    of_own = student[:, own]
    taught = teacher[:, own].argmax(1)
    true = F.cross_entropy(of_own, position[labels], label_smoothing=smoothing)
    return 0.5 * true + 0.5 * F.cross_entropy(of_own, taught, label_smoothing=smoothing)


def relation_loss(student: Tensor, teacher: Tensor, head_dim: int) -> Tensor:
    """Return how differently the tokens of two networks relate: KL(teacher || student) of row softmaxes, the mean row.

    Relations are R = F F^T / sqrt(head_dim), tokens by tokens, so that widths may differ.

    Args:
        student: Q, K or V with its heads side by side, (B, N, d).
        teacher: The same of the teacher.
        head_dim: Of both.

    Source:
        DEKD's L_Q, L_K and L_V: DeViT, arXiv 2309.05015; relations as in MiniLMv2, arXiv 2012.15828.
    """
    learned, taught = ((x @ x.transpose(1, 2) / head_dim**0.5).log_softmax(-1) for x in (student, teacher))
    return F.kl_div(learned.flatten(0, 1), taught.flatten(0, 1), reduction="batchmean", log_target=True)
