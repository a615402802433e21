"""Loss functions of the trainings, against plain numpy.

Legend: B images, C classes, n own classes, N tokens, D devices.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from planner.arrays import Floats, Ints
from planner.network.distillation_data import Batch
from planner.network.distillation_losses import hard_distillation_loss, relation_matching_loss
from planner.network.fusion import Fusion
from planner.network.joint_model import JointLoss, JointModel, MatchedJointModel, TokenMatchingLoss
from planner.network.losses import (
    DEVICE_DROPOUT,
    CrossEntropyLoss,
    DistillationLoss,
    FusionLoss,
    OwnOrOtherLoss,
    RelationMatchingLoss,
    block_qkv,
    device_dropout,
    middle_block,
)
from planner.network.vit import Shape, VisionTransformer
from tests.helpers.plain_vit import attention_of, generator, random_images, random_model

SHAPE = Shape(4, 2, 2, 4, embed_dim=8, head_dim=4, num_heads=(2, 1), hidden_dim=(5, 3))
TEACHER = random_model(SHAPE)
LABELS = torch.tensor([0, 1, 3, 1, 2])


def batch(inputs: Tensor | None = None, labels: Tensor = LABELS) -> Batch:
    """Return images with random teacher logits and features."""
    inputs = random_images(SHAPE, len(labels)) if inputs is None else inputs
    teacher_logits = 2 * torch.randn(len(labels), 4, generator=generator(1))
    return Batch(inputs, labels, teacher_logits, torch.randn(len(labels), 8, generator=generator(2)))


def one_hot(labels: Tensor) -> Tensor:
    """Return labels as shares of four classes."""
    return torch.eye(4)[labels]


def softmax(logits: Floats) -> Floats:
    """Return probabilities of the last axis."""
    p: Floats = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    return p


def cross_entropy(logits: Floats, labels: Sequence[int] | Ints) -> float:
    """Return the mean -log p of the labels."""
    return float(-np.log(softmax(logits)[range(len(labels)), labels]).mean())


def soft(logits: Floats, teacher_logits: Floats, temperature: float = 2.0) -> float:
    """Return T^2 KL(teacher || student), both softened by T."""
    p, q = softmax(teacher_logits / temperature), softmax(logits / temperature)
    return float(temperature**2 * (p * np.log(p / q)).sum(1).mean())


def own_or_other(logits: Floats, labels: Sequence[int], own: Sequence[int]) -> float:
    """Return the mean -log p of the labels, those of foreign classes lumped together."""
    p = softmax(logits)
    foreign = [c for c in range(p.shape[1]) if c not in own]
    return float(-np.mean([np.log(p[b, y] if y in own else p[b, foreign].sum()) for b, y in enumerate(labels)]))


def fused(fusion: Fusion, features: Floats) -> tuple[Floats, Floats]:
    """Return hidden units and logits, in numpy, of a fusion that does not standardise."""
    w1, b1, w2, b2 = (p.detach().numpy() for p in (*fusion.fc1.parameters(), *fusion.fc2.parameters()))
    hidden = features @ w1.T + b1
    gelu = 0.5 * hidden * (1 + torch.erf(torch.from_numpy(hidden / 2**0.5)).numpy())
    return hidden, gelu @ w2.T + b2


def random_fusion(embed_dims: list[int]) -> Fusion:
    """Return a fusion with random weights, in eval mode."""
    fusion = Fusion(embed_dims, hidden=6, num_classes=4).eval()
    for p in (*fusion.fc1.parameters(), *fusion.fc2.parameters()):
        torch.nn.init.normal_(p, generator=generator(3))
    return fusion


def numbers(values: Tensor) -> Floats:
    """Return a tensor as numpy."""
    return values.detach().numpy()


# One sub-model


@pytest.mark.parametrize("own", [[1], [3, 0], [0, 1, 2, 3]])
def test_own_or_other_is_the_likelihood_of_the_lumped_labels(own: list[int]) -> None:
    """Foreign classes count as one class; together with the soft loss, both count half."""
    data, model = batch(), random_model(SHAPE, 4)
    logits = numbers(model(data.inputs))
    hard = own_or_other(logits, LABELS.tolist(), own)
    assert OwnOrOtherLoss(own, 4)(model, data, generator()).item() == pytest.approx(hard, rel=1e-4)
    both = 0.5 * hard + 0.5 * soft(logits, data.teacher_logits.numpy())
    assert DistillationLoss(own, 4)(model, data, generator()).item() == pytest.approx(both, rel=1e-4)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_hard_loss_is_of_labels_and_of_the_likeliest(smoothing: float) -> None:
    """Among own classes 1 and 3, labels and the teacher's favourite count half each, both with label smoothing."""
    own, labels = [1, 3], np.array([1, 3, 1])
    student, teacher = (torch.randn(3, 4, generator=generator(seed)).double() for seed in (1, 2))
    log_p = np.log(softmax(student.numpy()[:, own]))
    favourites = teacher.numpy()[:, own].argmax(1)

    def smoothed(columns: Iterable[int]) -> float:
        rows = zip(log_p, columns, strict=True)
        return float(-np.mean([(1 - smoothing) * row[c] + smoothing * row.mean() for row, c in rows]))

    expected = 0.5 * smoothed([own.index(y) for y in labels]) + 0.5 * smoothed(favourites)
    mask = torch.tensor([c in own for c in range(4)])
    got = hard_distillation_loss(student, teacher, one_hot(torch.from_numpy(labels)).double(), mask, smoothing)
    assert got.item() == pytest.approx(expected, rel=1e-10)


def relations(x: Floats, head_dim: int) -> Floats:
    """Return how much each token attends to each other, (B, N, N)."""
    return softmax(x @ x.transpose(0, 2, 1) / head_dim**0.5)


def test_relation_loss_is_the_divergence_of_rows() -> None:
    """The loss is KL(teacher || student) of token relations, averaged over rows; widths may differ."""
    student, teacher = (torch.randn(2, 5, d, generator=generator(d)).double() for d in (4, 12))
    p, q = relations(teacher.numpy(), 4), relations(student.numpy(), 4)
    expected = (p * np.log(p / q)).sum(-1).mean()
    assert relation_matching_loss(student, teacher, 4).item() == pytest.approx(expected, rel=1e-10)
    assert relation_matching_loss(student, student, 4).item() == pytest.approx(0, abs=1e-15)
    turned = student @ torch.linalg.qr(torch.randn(4, 4, generator=generator()).double())[0]
    assert relation_matching_loss(student, turned, 4).item() == pytest.approx(0, abs=1e-12)


def test_dekd_adds_the_relations_of_the_middle_block() -> None:
    """To the hard loss come 0.2, 0.1 and 0.3 times the relations of Q, K and V over the depth, at block 1 of 2."""
    data, student = batch(labels=torch.tensor([0, 3, 3])), random_model(SHAPE, 4)
    own = torch.tensor([True, False, False, True])
    expected = hard_distillation_loss(student(data.inputs), data.teacher_logits, one_hot(data.labels), own, 0.1).item()
    for weight, mine, theirs in zip(
        (0.2, 0.1, 0.3), *(block_qkv(m, data.inputs, 1) for m in (student, TEACHER)), strict=True
    ):
        p, q = (relations(numbers(x), 4) for x in (theirs, mine))
        expected += weight / 2 * (p * np.log(p / q)).sum(-1).mean()
    assert RelationMatchingLoss([0, 3], TEACHER)(student, data, generator()).item() == pytest.approx(expected, rel=1e-4)


def test_q_k_and_v_are_those_of_the_block() -> None:
    """Q, K and V at block 1 are the output of its qkv layer."""
    images, seen = random_images(SHAPE, 2), []
    hook = attention_of(TEACHER, 1).qkv.register_forward_hook(lambda module, args, out: seen.append(out))
    TEACHER(images)
    hook.remove()
    assert torch.equal(torch.cat(list(block_qkv(TEACHER, images, 1)), -1), seen[0])


@pytest.mark.parametrize(
    ("num_heads", "expected"),
    [((1, 1, 1, 1), 2), ((1, 1, 0, 1), 1), ((1, 0, 0, 0), 0), ((0, 0, 0, 0), None), ((1,), 0)],
)
def test_the_middle_block_has_heads(num_heads: tuple[int, ...], expected: int | None) -> None:
    """The block with heads nearest to the middle is chosen; None where no block has any."""
    shape = replace(SHAPE, num_heads=num_heads, hidden_dim=(3,) * len(num_heads))
    assert middle_block(VisionTransformer(shape)) == expected


def test_without_heads_only_labels_are_learned() -> None:
    """A student without heads has no relations; its loss is the hard loss."""
    student = random_model(Shape(4, 2, 2, 4, embed_dim=8, head_dim=4, num_heads=(0, 0), hidden_dim=(5, 3)))
    data = batch()
    expected = hard_distillation_loss(
        student(data.inputs), data.teacher_logits, one_hot(data.labels), torch.ones(4).bool(), 0.1
    ).item()
    assert RelationMatchingLoss([0, 1, 2, 3], TEACHER)(student, data, generator()).item() == pytest.approx(expected)


def test_a_shallower_teacher_is_compared_at_the_same_relative_depth() -> None:
    """A student with heads in the last of 8 blocks alone is compared with the last of the teacher's 2."""
    shape = Shape(4, 2, 2, 4, embed_dim=8, head_dim=4, num_heads=(0,) * 7 + (1,), hidden_dim=(2,) * 8)
    student, data, seen = random_model(shape), batch(), []
    hook = attention_of(TEACHER, 1).qkv.register_forward_hook(lambda module, args, out: seen.append(out))
    assert torch.isfinite(RelationMatchingLoss([0, 1, 2, 3], TEACHER)(student, data, generator()))
    hook.remove()
    assert len(seen) == 1


# Fusions and all together


def test_a_fusion_learns_labels_or_labels_and_teacher_logits() -> None:
    """In eval mode, with all devices: cross-entropy, or half of it and half of the soft loss."""
    fusion = random_fusion([3, 2])
    data = batch(torch.randn(5, 5, generator=generator()))
    _, logits = fused(fusion, data.inputs.numpy())
    hard = cross_entropy(logits, LABELS.tolist())
    assert CrossEntropyLoss()(fusion, data, generator()).item() == pytest.approx(hard, rel=1e-4)
    both = 0.5 * hard + 0.5 * soft(logits, data.teacher_logits.numpy())
    assert FusionLoss()(fusion, data, generator()).item() == pytest.approx(both, rel=1e-4)


def test_devices_are_dropped_out_while_a_fusion_learns() -> None:
    """In training mode the generator drops about a tenth of all devices; in eval mode none."""
    fusion = random_fusion([3, 2])
    data = batch(torch.zeros(4000, 5), torch.zeros(4000, dtype=torch.long))
    assert device_dropout(fusion, data, generator()) is None
    drawn = device_dropout(fusion.train(), data, generator())
    again = device_dropout(fusion, data, generator())
    assert drawn is not None
    assert again is not None
    assert drawn.shape == (4000, 2)
    assert set(drawn.flatten().tolist()) == {0.0, 1.0}
    assert 1 - drawn.mean(0).numpy() == pytest.approx(DEVICE_DROPOUT, abs=0.02)
    assert torch.equal(drawn, again)


def test_the_joint_loss_adds_the_sub_models_own_losses() -> None:
    """To the fused loss comes a weight of 0.3, shared equally by the own losses of two sub-models."""
    models, owns = [random_model(SHAPE, seed) for seed in (4, 5)], [[0, 2], [1, 3]]
    joint, data = JointModel(models, random_fusion([8, 8])).eval(), batch()
    features = np.hstack([numbers(model.features(data.inputs)) for model in models])
    _, logits = fused(joint.fusion, features)
    teacher_logits, labels = data.teacher_logits.numpy(), LABELS.tolist()
    expected = 0.5 * cross_entropy(logits, labels) + 0.5 * soft(logits, teacher_logits)
    for model, own in zip(models, owns, strict=True):
        mine = numbers(model(data.inputs))
        expected += 0.3 / 2 * (0.5 * own_or_other(mine, labels, own) + 0.5 * soft(mine, teacher_logits))
    assert JointLoss(owns, 4, 0.3)(joint, data, generator()).item() == pytest.approx(expected, rel=1e-4)


def test_hidden_units_match_the_teacher_features() -> None:
    """Mean squared error of the matched hidden units, half the labels, half the teacher's favourite class."""
    models = [random_model(SHAPE, seed) for seed in (4, 5)]
    joint, data = MatchedJointModel(models, random_fusion([8, 8]), teacher_dim=8).eval(), batch()
    torch.nn.init.normal_(joint.match.weight, generator=generator(6))
    torch.nn.init.normal_(joint.match.bias, generator=generator(7))
    features = np.hstack([numbers(model.features(data.inputs)) for model in models])
    hidden, logits = fused(joint.fusion, features)
    matched = hidden @ numbers(joint.match.weight).T + numbers(joint.match.bias)
    expected = np.mean((matched - data.teacher_features.numpy()) ** 2)
    expected += 0.5 * cross_entropy(logits, LABELS.tolist())
    expected += 0.5 * cross_entropy(logits, data.teacher_logits.numpy().argmax(1))
    assert TokenMatchingLoss()(joint, data, generator()).item() == pytest.approx(expected, rel=1e-4)
