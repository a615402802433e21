"""Loss terms of sub-models and fusion: labels, and knowledge distillation from a teacher, by default the whole model.

A sub-model answers for its own classes and for "other", all foreign classes together. It keeps
the whole model's head layer, so "other" needs no output of its own: its probability is the sum
of the foreign ones. Labels are learned in these terms; the teacher's soft targets are learned for
all classes, since the fusion gains from features that tell foreign classes apart (five sub-models
of two digits each at a quarter of the retention: 39 errors instead of 77).

Legend: B images, C classes, n own classes, N tokens, d dims of all heads together (student and teacher may differ).
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def log_own_and_other(logits: Tensor, own: Tensor) -> Tensor:
    """Return log probabilities (B, n + 1) of the own classes and of all others together.

    Args:
        logits: (B, C).
        own: Mask of the sub-model's own classes, (C,) bool. If all are, there is no other: (B, n).
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
    """Return half cross-entropy with own-or-other labels, half `soft_target_loss` over all classes.

    Args:
        student: Logits (B, C).
        teacher: Logits (B, C).
        labels: (B,).
        own: Mask of the own classes, (C,) bool.
        temperature: Softens both networks' probabilities.

    Source:
        Knowledge distillation: Hinton et al., arXiv 1503.02531; "other" as in EC-SNN (IJCAI 2024).
    """
    hard = F.nll_loss(log_own_and_other(student, own), own_and_other_labels(labels, own))
    return 0.5 * hard + 0.5 * soft_target_loss(student, teacher, temperature)


def soft_target_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return KL(teacher || student) of softened probabilities, scaled so that its gradient keeps its size.

    Args:
        student: Logits (B, C).
        teacher: Logits (B, C).
        temperature: Divides both.

    Source:
        Hinton et al., arXiv 1503.02531.
    """
    log_student, log_teacher = ((logits / temperature).log_softmax(1) for logits in (student, teacher))
    return temperature**2 * F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)


def hard_distillation_loss(
    student: Tensor, teacher: Tensor, label_shares: Tensor, own: Tensor, smoothing: float
) -> Tensor:
    """Return half cross-entropy with the labels, half with the teacher's most likely class, both smoothed.

    Only the own classes count: the labels must be among them.

    Args:
        student: Logits (B, C).
        teacher: Logits (B, C).
        label_shares: Share of each class in each image's label, (B, C).
        own: Mask of the own classes, (C,) bool.
        smoothing: Share of each label that is spread over all own classes.

    Source:
        DEKD's L_cls: DeViT, arXiv 2309.05015; the teacher's part is DeiT's hard-label distillation, arXiv 2012.12877.
    """
    own_logits = student[:, own]
    teacher_labels = teacher[:, own].argmax(1)
    true = F.cross_entropy(own_logits, label_shares[:, own], label_smoothing=smoothing)
    return 0.5 * true + 0.5 * F.cross_entropy(own_logits, teacher_labels, label_smoothing=smoothing)


def relation_matching_loss(student: Tensor, teacher: Tensor, head_dim: int) -> Tensor:
    """Return KL(teacher || student) of the token relations' row softmaxes, averaged over rows.

    Relations are R = F F^T / sqrt(head_dim), tokens by tokens, so that widths may differ.

    Args:
        student: Q, K or V with its heads side by side, (B, N, d).
        teacher: The same of the teacher.
        head_dim: Head dim of both.

    Source:
        DEKD's L_Q, L_K and L_V: DeViT, arXiv 2309.05015; relations as in MiniLMv2, arXiv 2012.15828.
    """
    log_student, log_teacher = (
        (x @ x.transpose(1, 2) / head_dim**0.5).log_softmax(-1) for x in (student, teacher)
    )  # (B, N, N) each
    return F.kl_div(log_student.flatten(0, 1), log_teacher.flatten(0, 1), reduction="batchmean", log_target=True)
