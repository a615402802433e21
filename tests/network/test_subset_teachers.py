"""Teachers of class subsets: fine-tuned for their own classes, and heard where they know better."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from planner.network.data import Jitter, Samples
from planner.network.distillation_data import DistillationData, make_distillation_data
from planner.network.losses import RelationMatchingLoss
from planner.network.recipes import RECIPES, RecoveryTask, SubModelPart
from planner.network.recipes.subset_teachers import subset_teachers, taught_own_classes
from planner.network.surgery import Selection
from planner.network.training import TrainingTask, train_inline
from planner.network.vit import Shape, VisionTransformer
from tests.helpers.plain_vit import random_images, random_model, stored_logits
from tests.helpers.trainings import assert_same, numbers

SHAPE = Shape(8, 4, 2, 4, embed_dim=8, head_dim=4, num_heads=(2, 2), hidden_dim=(12, 12))
WHOLE = random_model(SHAPE)


def data_of(count: int) -> DistillationData:
    """Return images of four classes, in one copy, with the whole model's outputs."""
    samples = Samples(random_images(SHAPE, count), torch.arange(count) % 4)
    return make_distillation_data(WHOLE, samples, Jitter(0.0, 0.0), seed=0)


def task_of() -> RecoveryTask:
    """Return two sub-models of two classes each, each with a teacher of its own."""
    parts = []
    for name, classes in (("a", (0, 2)), ("b", (1, 3))):
        selection = Selection.of([[0], [1]], [range(6), range(6)], range(8))
        parts.append(SubModelPart(name, selection.cut(WHOLE), classes, selection))
    return RecoveryTask(tuple(parts), WHOLE, WHOLE, data_of(40), data_of(8), 6, 1.0, 0, subset_teachers=True)


def accuracy_among(model: VisionTransformer, data: DistillationData, own: tuple[int, ...]) -> float:
    """Return how often the likeliest of the own classes is right, on images of these."""
    chosen = torch.where(torch.isin(data.labels, torch.tensor(own)))[0]
    with torch.no_grad():
        found = model(data.images[chosen])[:, list(own)].argmax(1)
    return float((torch.tensor(own)[found] == data.labels[chosen]).float().mean())


def test_each_teacher_knows_its_own_classes_better() -> None:
    """Each is trained on images of its own classes; the whole model stays as it is."""
    before, task = numbers(WHOLE), replace(task_of(), validation=data_of(40))
    seen: list[TrainingTask] = []

    def train(tasks: Sequence[TrainingTask]) -> None:
        seen.extend(tasks)
        # A random network learns little at the rate that suits a trained one.
        train_inline([replace(t, schedule=replace(t.schedule, learning_rate=1e-2, epochs=30)) for t in tasks])

    teachers = subset_teachers(task, train)
    assert [training.name for training in seen] == ["teacher of a", "teacher of b"]
    for part, training, teacher in zip(task.parts, seen, teachers, strict=True):
        assert len(training.data) == 20
        batch = training.data.batch(torch.arange(20), torch.Generator())
        assert set(batch.labels.tolist()) == set(part.classes)
        assert accuracy_among(teacher, task.data, part.classes) > accuracy_among(WHOLE, task.data, part.classes) + 0.1
        assert not any(p.requires_grad for p in teacher.parameters())
    assert_same(numbers(WHOLE), before)


def test_without_subsets_the_teacher_is_the_same_for_all() -> None:
    """Nothing is trained."""

    def never(tasks: Sequence[TrainingTask]) -> None:
        pytest.fail("nothing must be trained")

    assert subset_teachers(replace(task_of(), subset_teachers=False), never) == [WHOLE, WHOLE]


def test_own_classes_are_taught_by_the_teacher_of_the_subset() -> None:
    """Its outputs for their images, the whole model's for all others."""
    data, other = data_of(12), random_model(SHAPE, 5)
    taught = taught_own_classes(data, (1, 3), other)
    with torch.no_grad():
        expected = {False: WHOLE(data.images[torch.arange(12)]), True: other(data.images[torch.arange(12)])}
    for i, label in enumerate(data.labels.tolist()):
        assert torch.allclose(stored_logits(taught)[0, i], expected[label in (1, 3)][i], atol=1e-6)
    assert torch.equal(stored_logits(data), stored_logits(data_of(12)))
    assert stored_logits(taught_own_classes(data.take(torch.arange(0)), (1,), other)).shape == (1, 0, 4)


@pytest.mark.parametrize("recipe", ["default", "devit"])
def test_sub_models_learn_from_the_teachers_of_their_classes(recipe: str) -> None:
    """Teachers are trained first, all side by side; then each sub-model has the outputs of its own."""
    calls: list[list[TrainingTask]] = []

    def train(tasks: Sequence[TrainingTask]) -> None:
        calls.append(list(tasks))
        if tasks[0].name.startswith("teacher"):
            for training, seed in zip(tasks, (7, 8), strict=True):
                training.module.load_state_dict(random_model(SHAPE, seed).state_dict())

    task = task_of()
    RECIPES[recipe](task, train)
    assert [[training.name for training in call] for call in calls[:2]] == [
        ["teacher of a", "teacher of b"],
        ["a", "b"],
    ]
    for part, training, seed in zip(task.parts, calls[1], (7, 8), strict=True):
        teacher = random_model(SHAPE, seed)
        batch = training.validation.batch(torch.arange(len(training.validation)), torch.Generator())
        own = torch.isin(batch.labels, torch.tensor(part.classes))
        with torch.no_grad():
            assert torch.allclose(batch.teacher_logits[own], teacher(batch.inputs)[own], atol=1e-6)
        if isinstance(training.loss, RelationMatchingLoss):
            assert own.all()
            assert_same(numbers(training.loss.teacher), numbers(teacher))
        else:
            assert torch.allclose(batch.teacher_logits[~own], WHOLE(batch.inputs)[~own], atol=1e-6)
