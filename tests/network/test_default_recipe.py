"""The default recipe: sub-models are reconstructed first; without a budget only the fusion is trained."""

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module

import pytest
import torch

from planner.network import counts
from planner.network.data import Jitter, Samples
from planner.network.distillation_data import DistillationData, make_distillation_data
from planner.network.recipes import RECIPES, RecoveryTask, SubModelPart
from planner.network.recipes.default import max_reconstruction_images
from planner.network.surgery import Selection
from planner.network.training import TrainingTask, train_inline
from planner.network.vit import Shape, VisionTransformer
from tests.helpers.plain_vit import random_images, random_model, stored_logits

SHAPE = Shape(
    image_size=12,
    patch_size=4,
    in_channels=3,
    num_classes=4,
    embed_dim=12,
    head_dim=3,
    num_heads=(4, 4),
    hidden_dim=(20, 20),
)
DIMS = (0, 1, 3, 4, 5, 7, 8, 9, 11)


def data_of(whole: VisionTransformer, count: int = 48) -> DistillationData:
    """Return images of four classes with the whole model's outputs."""
    samples = Samples(random_images(SHAPE, count), torch.arange(count) % 4)
    return make_distillation_data(whole, samples, Jitter(0.0, 0.0), seed=0)


def task_of(whole: VisionTransformer, epochs: float = 0) -> RecoveryTask:
    """Return two narrow sub-models of two classes each."""
    parts = []
    for d, (name, classes) in enumerate((("a", (0, 1)), ("b", (2, 3))), start=1):
        selection = Selection.of([[0, d], [1]], [range(8), range(d, 20)], DIMS)
        parts.append(SubModelPart(name, selection.cut(whole), classes, selection))
    return RecoveryTask(tuple(parts), whole, whole, data_of(whole), data_of(whole, 8), 6, epochs, 0)


def recovered(task: RecoveryTask, names: list[str]) -> torch.Tensor:
    """Run the recipe, note the trainings and their epochs, and return the fused logits of the data's images."""

    def train(tasks: Sequence[TrainingTask]) -> None:
        names.extend(f"{training.name} {training.schedule.epochs:g}" for training in tasks)
        train_inline(tasks)

    fusion = RECIPES["default"](task, train)
    images = task.data.images[torch.arange(len(task.data))]
    with torch.no_grad():
        logits: torch.Tensor = fusion(torch.cat([model.features(images) for model in task.sub_models], 1))
    return logits


@pytest.mark.parametrize(
    ("epochs", "trainings"),
    [
        (0, ["a 0", "b 0", "fusion 20"]),
        (0.5, ["a 0.5", "b 0.5", "fusion 20"]),
        (3, ["a 2", "b 2", "fusion 20", "together 1"]),
        (5, ["a 2", "b 2", "fusion 20", "together 3"]),
        (30, ["a 15", "b 15", "fusion 30", "together 15"]),
    ],
)
def test_half_of_the_budget_is_for_each_step(epochs: float, trainings: list[str]) -> None:
    """Sub-models learn apart for half of the epochs, or two; a fusion has twice as many, or twenty."""
    task, names = task_of(random_model(SHAPE), epochs), list[str]()
    before = [part.sub_model.blocks[0].state_dict()["attn.proj.weight"].clone() for part in task.parts]
    assert torch.isfinite(recovered(task, names)).all()
    assert names == trainings
    after = [part.sub_model.blocks[0].state_dict()["attn.proj.weight"] for part in task.parts]
    assert not any(map(torch.equal, before, after))


def test_the_same_task_gives_the_same_bits() -> None:
    """Nothing is drawn but by the seed, so a run that starts again goes on from the same sub-models."""
    first, second = (recovered(task_of(random_model(SHAPE)), []) for _ in range(2))
    assert torch.equal(first, second)


def test_each_sub_model_learns_from_its_own_classes_and_as_many_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 48 images, 24 are of a sub-model's classes, so all others are seen; limits of number and memory draw some."""
    seen: list[int] = []

    def reconstruct(*arguments: object) -> None:
        seen.append(len(arguments[-1]))  # type: ignore[arg-type]

    # The package has a function of the module's name.
    module = import_module("planner.network.recipes.default")
    monkeypatch.setattr(module, "reconstruct", reconstruct)
    recovered(task_of(random_model(SHAPE)), [])
    monkeypatch.setattr(module, "_MAX_IMAGES", 10)
    recovered(task_of(random_model(SHAPE)), [])
    # Nine patches and the class token of twelve dims in float32, in two networks.
    monkeypatch.setattr(module, "_MAX_STREAM_BYTES", 7 * 2 * 10 * 12 * 4 + 1)
    recovered(task_of(random_model(SHAPE)), [])
    assert seen == [48, 48, 10, 10, 7, 7]


@pytest.mark.parametrize(("macs", "expected"), [(0, 4096), (3e12 / 5000, 4096), (3e12 / 2000, 2000), (1e10, 1024)])
def test_a_large_model_is_reconstructed_on_fewer_images(
    monkeypatch: pytest.MonkeyPatch, macs: float, expected: int
) -> None:
    """As many as take it three million million MACs, between a thousand and four thousand."""
    monkeypatch.setattr(counts, "exact", lambda shape: counts.Counts(macs=max(1, round(macs)), params=0))
    assert max_reconstruction_images(SHAPE) == pytest.approx(expected, abs=1)


@pytest.mark.parametrize(
    ("limit", "epochs", "seen"),
    # So many images are enough for a fusion; sub-models that are trained see 48 more in each epoch, and so may it.
    [(100, 0, 48), (48, 0, 48), (30, 0, 30), (10, 0.5, 34), (10, 0.99, 48), (1, 5, 48)],
)
def test_a_fusion_learns_from_as_many_images_as_its_budget_allows(
    monkeypatch: pytest.MonkeyPatch, limit: int, epochs: float, seen: int
) -> None:
    """Drawn at random by the seed, each with its own label and teacher logits; validation images are all used."""
    monkeypatch.setattr("planner.network.recipes.recovery_task._MIN_FUSION_IMAGES", limit)
    task = task_of(random_model(SHAPE), epochs)
    rows = {tuple(logits.tolist()): i for i, logits in enumerate(stored_logits(task.data)[0])}
    fusions: list[TrainingTask] = []

    def train(tasks: Sequence[TrainingTask]) -> None:
        fusions.extend(training for training in tasks if training.name == "fusion")

    for seed in (0, 0, 1):
        RECIPES["default"](replace(task, seed=seed), train)
    drawn = []
    for fusion in fusions:
        batch = fusion.data.batch(torch.arange(len(fusion.data)), torch.Generator())
        indices = [rows[tuple(logits.tolist())] for logits in batch.teacher_logits]
        assert batch.labels.tolist() == task.data.labels[indices].tolist()
        assert len(set(indices)) == len(indices) == seen
        assert len(fusion.validation) == 8
        drawn.append(indices)
    assert drawn[0] == drawn[1]
    assert (drawn[0] != drawn[2]) == (seen < 48)
    assert drawn[0] == sorted(drawn[0])
