"""Matching of features: the loss against plain numpy, what the fit explains, and that training brings them nearer."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from planner.network.data import Jitter, Samples
from planner.network.distillation_data import Batch, DistillationData, make_distillation_data
from planner.network.feature_matching import FeatureMatchingLoss, MatchedStudent, MatchFit
from planner.network.joint_model import JointLoss, JointModel
from planner.network.losses import DistillationLoss
from planner.network.training import Schedule, TrainingTask, train_inline
from planner.network.vit import VisionTransformer
from tests.helpers.plain_vit import generator, random_images, random_model
from tests.network.test_losses import SHAPE, random_fusion

COUNT = 60
TEACHER = random_model(SHAPE, 9)


def data() -> DistillationData:
    """Return images with a teacher's outputs, its features far from mean 0 and deviation 1."""
    samples = Samples(random_images(SHAPE, COUNT), torch.arange(COUNT) % 4)
    known = make_distillation_data(TEACHER, samples, Jitter(0.0, 0.0), seed=0)
    return replace(known, teacher_features=5 + 3 * known.teacher_features)


def sub_model() -> VisionTransformer:
    """Return a random sub-model."""
    return random_model(SHAPE, 1).eval()


def joint_model() -> JointModel:
    """Return two sub-models and their fusion."""
    return JointModel([random_model(SHAPE, seed) for seed in (1, 2)], random_fusion([8, 8])).eval()


def whole_batch(known: DistillationData) -> Batch:
    """Return all images in one batch."""
    return known.batch(torch.arange(COUNT), generator())


@pytest.mark.parametrize("together", [False, True])
def test_the_loss_adds_the_error_of_the_standardised_features(together: bool) -> None:
    """By numpy: the teacher's features less their mean, by their deviation, less a linear function of the student's."""
    known = data()
    student = joint_model() if together else sub_model()
    num_features = 16 if together else 8
    loss = JointLoss([[0, 2], [1, 3]], 4, 0.3) if together else DistillationLoss([0, 2], 4)
    module = MatchedStudent(student, num_features, known.teacher_features).eval()
    torch.nn.init.normal_(module.match.weight, generator=generator(6))
    torch.nn.init.normal_(module.match.bias, generator=generator(7))
    batch = whole_batch(known)
    features = np.hstack(
        [m.features(batch.inputs).detach().numpy() for m in (student.sub_models if together else [student])]  # type: ignore[union-attr]
    )
    if together:
        fusion = student.fusion
        features = (features - fusion.mean.numpy()) / fusion.std.numpy()  # type: ignore[union-attr, operator]
    taught = known.teacher_features[0].numpy()
    targets = (taught - taught.mean(0)) / taught.std(0, ddof=1)
    told = features @ module.match.weight.detach().numpy().T + module.match.bias.detach().numpy()
    expected = loss(student, batch, generator()).item() + 0.7 * ((told - targets) ** 2).mean()
    assert FeatureMatchingLoss(loss, 0.7)(module, batch, generator()).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("together", [False, True])
def test_the_fit_explains_what_a_linear_layer_can(together: bool) -> None:
    """Features that are linear in the student's are told to the last digit nearly, all images seen or not."""
    known, student = data(), joint_model() if together else sub_model()
    features = student.features(known.images[torch.arange(COUNT)]).detach()
    mixing = torch.randn(features.shape[1], 5, generator=generator(3))
    known = replace(known, teacher_features=(features @ mixing + 2)[None])
    module = MatchedStudent(student, features.shape[1], known.teacher_features)
    MatchFit.of(known)(module)
    error = module.match(features) - module.standardised(known.teacher_features[0])
    # The smallest ridge is a thousandth of the variance.
    assert error.square().mean().item() < 1e-3


def test_a_match_says_nothing_before_it_is_fitted() -> None:
    """The error is then the variance of standardised features, and logits are the student's."""
    known = data()
    module = MatchedStudent(sub_model(), 8, known.teacher_features)
    told = module.match(torch.randn(COUNT, 8))
    assert (told - module.standardised(known.teacher_features[0])).square().mean().item() == pytest.approx(1, rel=0.05)
    images = known.images[torch.arange(COUNT)]
    assert torch.equal(module(images), module.student(images))


def test_a_constant_feature_of_the_teacher_is_no_division_by_zero() -> None:
    """Its error is that of a constant, not infinity."""
    known = data()
    constant = known.teacher_features.clone()
    constant[..., 0] = 1.5
    module = MatchedStudent(sub_model(), 8, constant)
    MatchFit.of(replace(known, teacher_features=constant))(module)
    loss = FeatureMatchingLoss(DistillationLoss([0], 4), 1.0)
    assert torch.isfinite(loss(module, whole_batch(replace(known, teacher_features=constant)), generator()))


def test_training_brings_the_features_nearer_to_the_teachers() -> None:
    """The features' error of a student falls well below that of the fit alone."""
    known = data()
    module = MatchedStudent(sub_model(), 8, known.teacher_features)
    MatchFit.of(known)(module)

    def error() -> float:
        features = module.student.features(known.images[torch.arange(COUNT)])
        off = module.match(features) - module.standardised(known.teacher_features[0])
        value: float = off.square().mean().item()
        return value

    before = error()
    loss = FeatureMatchingLoss(DistillationLoss([0, 2], 4), 1.0)
    schedule = Schedule(30, batch_size=20, learning_rate=1e-2)
    train_inline([TrainingTask("a", module, loss, known, known.take(torch.arange(0)), schedule, 0)])
    assert error() < 0.8 * before
