"""Ablations of the accuracy benchmark: each changes exactly what it says."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from benchmarks.accuracy import ablations
from planner.arrays import Floats
from planner.library import load_profile
from planner.network.data import Jitter, Samples
from planner.network.distillation_data import Batch, extract_features, make_distillation_data
from planner.network.feature_matching import FeatureMatchingLoss, MatchedStudent, MatchFit
from planner.network.fusion import Fusion
from planner.network.fusion_fit import FusionFit
from planner.network.joint_model import JointLoss, JointModel
from planner.network.losses import DistillationLoss, FusionLoss, OwnOrOtherLoss, RelationMatchingLoss
from planner.network.recipes.default import Reconstruction
from planner.network.surgery import Selection
from planner.network.training import Schedule, TrainingTask
from planner.network.vit import Shape, VisionTransformer
from planner.schema import Assignment, FusionCost, Goal, Plan, SolverRun


def test_alike_importance_is_the_mean_over_classes() -> None:
    """Each class has the mean importance of all, head by head, which sums to one."""
    profile = load_profile("digits-vit")
    alike = ablations.with_mean_importance(profile)
    expected = np.mean(profile.importance.heads, axis=0)
    for heads in alike.importance.heads:
        np.testing.assert_allclose(heads, expected, rtol=1e-12)


def plan_of(retention: dict[str, dict[str, float]]) -> Plan:
    """Return a plan in which devices serve classes with these retentions."""
    assignments = [
        Assignment(
            device=device,
            classes=tuple(kept),
            embed_dim=8,
            kept_heads=((0,),),
            kept_channel_groups=((0,),),
            send_us=0,
            compute_us=1,
            return_us=0,
            memory_bytes=1,
            retention=kept,
            estimated=False,
        )
        for device, kept in retention.items()
    ]
    return Plan(
        status="feasible",
        latency_us=1,
        bound_us=1,
        gap=0.0,
        goal=Goal(),
        profile_sha256="p",
        fleet_sha256="f",
        solver=SolverRun(version="v", seconds=0.0, seed=0),
        assignments=tuple(assignments),
        fusion=FusionCost(device="a", latency_us=0),
    )


def test_each_class_stays_where_its_retention_is_highest() -> None:
    """`far`, never the best, takes of `near`'s two classes the one that loses 0.1 instead of 0.3."""
    plan = plan_of({"near": {"0": 0.9, "1": 0.8}, "far": {"0": 0.6, "1": 0.7}, "third": {"0": 0.1, "2": 0.5}})
    alone = ablations.on_one_device(plan)
    assert {a.device: a.classes for a in alone.assignments} == {"near": ("0",), "far": ("1",), "third": ("2",)}
    assert dict(alone.assignments[1].retention) == {"1": 0.7}


def test_random_subsets_keep_sizes_and_copies() -> None:
    """Each device keeps its number of classes, and one class stays on both devices."""
    plan = plan_of({"near": {"0": 0.9, "1": 0.8}, "far": {"1": 0.5, "2": 0.6}})
    drawn = [ablations.random_subsets(plan, seed) for seed in range(8)]
    for subsets in drawn:
        assert {device: len(set(classes)) for device, classes in subsets.items()} == {"near": 2, "far": 2}
        assert {name for classes in subsets.values() for name in classes} == {"0", "1", "2"}
    assert len({str(subsets) for subsets in drawn}) > 1


def batch_of(seed: int) -> Batch:
    """Return six random images with labels and teacher logits."""
    generator = torch.Generator().manual_seed(seed)
    images, teacher_logits = torch.randn(6, 1, 4, 4, generator=generator), torch.randn(6, 4, generator=generator)
    return Batch(images, torch.tensor([0, 1, 2, 3, 0, 2]), teacher_logits, torch.zeros(6, 8))


SHAPE = Shape(4, 2, 1, 4, 8, 4, (1,), (8,))


def model_of(seed: int) -> VisionTransformer:
    """Return a random model of one block."""
    torch.manual_seed(seed)
    return VisionTransformer(SHAPE).eval()


def test_own_alone_is_a_softmax_over_own_classes_of_own_images() -> None:
    """By hand: only images of classes 0 and 2, and only their logits, at temperature 2."""
    batch, model = batch_of(0), model_of(0)
    value = ablations.without_other(DistillationLoss((0, 2), 4))(model, batch, torch.Generator())
    logits = model(batch.inputs).detach().numpy()[[0, 2, 4, 5]][:, [0, 2]].astype(float)
    taught = batch.teacher_logits.numpy()[[0, 2, 4, 5]][:, [0, 2]].astype(float)
    labels = [0, 1, 0, 1]

    def softmax(x: Floats) -> Floats:
        p: Floats = np.exp(x) / np.exp(x).sum(1, keepdims=True)
        return p

    hard = -np.log(softmax(logits)[range(4), labels]).mean()
    p, q = softmax(taught / 2), softmax(logits / 2)
    soft = 4 * (p * np.log(p / q)).sum(1).mean()
    assert value.item() == pytest.approx(0.5 * hard + 0.5 * soft, rel=1e-5)


def test_own_alone_is_zero_without_own_images() -> None:
    """Without images of the own classes the loss is zero and still has a gradient."""
    logits = torch.randn(2, 4, requires_grad=True)
    batch = Batch(torch.zeros(2), torch.tensor([0, 1]), torch.randn(2, 4), torch.zeros(2, 8))
    value = ablations.own_classes_loss(logits, batch, torch.tensor([False, False, True, True]))
    value.backward()
    assert value.item() == 0


def test_without_teacher_its_logits_do_not_matter() -> None:
    """Other teacher logits leave each loss as it is, bit for bit."""
    batch = batch_of(0)
    other = batch._replace(teacher_logits=-batch.teacher_logits)
    model, fusion = model_of(0), Fusion((8, 8), 4, 4).eval()
    joint = JointModel([model, model_of(1)], fusion).eval()
    features = batch._replace(inputs=torch.randn(6, 16))
    for loss, module, given in (
        (DistillationLoss((0, 2), 4), model, batch),
        (FusionLoss(), fusion, features),
        (JointLoss([(0, 2), (1, 3)], 4, 0.3), joint, batch),
    ):
        changed = ablations.without_teacher(loss)
        values = [
            changed(module, b, torch.Generator().manual_seed(0))
            for b in (given, given._replace(teacher_logits=other.teacher_logits))
        ]
        assert torch.equal(*values)
        assert not torch.equal(values[0], loss(module, given, torch.Generator().manual_seed(0)))


def test_together_without_teacher_is_labels_fused_and_own() -> None:
    """The fused cross-entropy, and 0.3 times the mean of the sub-models' own-or-other losses."""
    batch, models, fusion = batch_of(0), [model_of(0), model_of(1)], Fusion((8, 8), 4, 4)
    own = [(0, 2), (1, 3)]
    joint = JointModel(models, fusion).eval()
    value = ablations.without_teacher(JointLoss(own, 4, 0.3))(joint, batch, torch.Generator())
    fused = fusion(torch.cat([m.features(batch.inputs) for m in models], 1))
    apart = [OwnOrOtherLoss(o, 4)(m, batch, torch.Generator()) for o, m in zip(own, models, strict=True)]
    expected = F.cross_entropy(fused, batch.labels) + 0.3 * (apart[0] + apart[1]) / 2
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_changed_recipe_matches_no_features() -> None:
    """Sub-models and loss are what they are without the match; a preparation stays unless it prepares the match."""
    batch, model = batch_of(0), model_of(0)
    images = Samples(batch.inputs, batch.labels)
    data = make_distillation_data(model_of(1), images, Jitter(0.0, 0.0), seed=0)
    student = MatchedStudent(model, 4, data.teacher_features)
    loss = FeatureMatchingLoss(DistillationLoss((0, 2), 4), 1.0)
    other = FusionFit(extract_features([model], data), 0)
    for preparation, left in ((MatchFit.of(data), None), (other, other)):
        task = TrainingTask("a", student, loss, data, data, Schedule(1), 0, preparation)
        plain = ablations.without_matching(task)
        assert plain.module is model
        assert plain.loss is loss.loss
        assert plain.preparation is left
    everything = Selection.of([range(2)], [range(8)], range(8))
    rebuilt = Reconstruction(model_of(2), everything, data.images, MatchFit.of(data))
    changed = ablations.without_matching(TrainingTask("a", student, loss, data, data, Schedule(1), 0, rebuilt))
    assert isinstance(changed.preparation, Reconstruction)
    assert vars(changed.preparation) == vars(rebuilt) | {"match": None}
    unmatched = TrainingTask("a", model, loss.loss, data, data, Schedule(1), 0)
    assert ablations.without_matching(unmatched) is unmatched


def test_an_unknown_loss_is_refused() -> None:
    """A changed recipe must not pass for its own ablation."""
    for change in (ablations.without_teacher, ablations.without_other):
        with pytest.raises(TypeError, match="no other form of loss Relation"):
            change(RelationMatchingLoss((0,), model_of(0)))
