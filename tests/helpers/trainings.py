"""Small trainings for tests of the loop: a network on noisy inputs, and every loss of the recipes."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from planner.network.data import Jitter, Samples
from planner.network.distillation_data import (
    Batch,
    BatchSource,
    DistillationData,
    extract_features,
    make_distillation_data,
)
from planner.network.fusion import Fusion
from planner.network.joint_model import JointLoss, JointModel, MatchedJointModel, TokenMatchingLoss
from planner.network.losses import (
    CrossEntropyLoss,
    DistillationLoss,
    FusionLoss,
    Loss,
    OwnOrOtherLoss,
    RelationMatchingLoss,
)
from planner.network.training import Epoch, Schedule, TrainingTask
from planner.network.vit import Shape, VisionTransformer, initialise
from tests.helpers.plain_vit import State, generator, random_images, random_model

SHAPE = Shape(4, 2, 2, 3, embed_dim=8, head_dim=4, num_heads=(2, 0, 1), hidden_dim=(5, 3, 0))
IMAGES = random_images(SHAPE, 20)
TARGETS = torch.arange(20) % 3
SCHEDULE = Schedule(epochs=4, batch_size=8)


@dataclass(frozen=True)
class Noisy:
    """Inputs with random noise, and labels."""

    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """Return inputs with noise, without a teacher."""
        inputs, no_teacher = self.inputs[indices], torch.empty(len(indices), 0)
        noise = 0.1 * torch.randn(inputs.shape, generator=generator)
        return Batch(inputs + noise, self.labels[indices], no_teacher, no_teacher)


class Scripted(Loss):
    """A loss that is cross-entropy in training, and in eval mode one of the given values after the other."""

    def __init__(self, values: Iterable[float]) -> None:
        super().__init__()
        self.values = list(values)

    def forward(self, module: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        if module.training:
            return F.cross_entropy(module(batch.inputs), batch.labels)
        assert not torch.is_grad_enabled()
        return torch.tensor(self.values.pop(0))


def _fresh_vit() -> VisionTransformer:
    model = VisionTransformer(SHAPE)
    initialise(model, generator(5))
    return model


def _fresh_fusion(inputs: Tensor) -> Fusion:
    fusion = Fusion([20, 12], hidden=6, num_classes=3)
    with torch.no_grad():
        for p in (*fusion.fc1.parameters(), *fusion.fc2.parameters()):
            p.normal_(generator=generator(5))
        fusion.standardise(inputs)
    return fusion


def make_task(
    network: str = "vit", num_validation: int = 0, schedule: Schedule = SCHEDULE, seed: int = 3
) -> TrainingTask:
    """Return a training of an untrained network on labels, with some of 20 samples for validation."""
    model: nn.Module
    if network == "vit":
        model, inputs = _fresh_vit(), IMAGES
    else:
        inputs = IMAGES.flatten(1)
        model = _fresh_fusion(inputs)
    size = 20 - num_validation
    data, validation = Noisy(inputs[:size], TARGETS[:size]), Noisy(inputs[size:], TARGETS[size:])
    return TrainingTask(network, model, CrossEntropyLoss(), data, validation, schedule, seed)


def copied_images() -> tuple[DistillationData, VisionTransformer]:
    """Return 20 images in three copies, with the outputs of a random teacher, and the teacher."""
    teacher = random_model(SHAPE)
    return make_distillation_data(teacher, Samples(IMAGES, TARGETS), Jitter(0.3, 5.0), seed=0, num_copies=3), teacher


def task_with_loss(loss_name: str) -> TrainingTask:
    """Return a training with one of the recipes' losses, a quarter of the images for validation."""
    known, teacher = copied_images()
    models = [random_model(SHAPE, seed) for seed in (1, 2)]
    fusion = Fusion([8, 8], hidden=4, num_classes=3)
    for p in (*fusion.fc1.parameters(), *fusion.fc2.parameters()):
        nn.init.normal_(p, generator=generator(3))
    matched = MatchedJointModel(models, fusion, teacher.shape.embed_dim)
    nn.init.normal_(matched.match.weight, generator=generator(4))
    nn.init.zeros_(matched.match.bias)
    of_recipes: dict[str, tuple[nn.Module, Loss]] = {
        "own or other": (models[0], OwnOrOtherLoss([0], 3)),
        "own or other and soft": (models[0], DistillationLoss([0, 2], 3)),
        "relations": (models[0], RelationMatchingLoss([0, 1, 2], teacher)),
        "fusion": (fusion, FusionLoss()),
        "fused and own": (JointModel(models, fusion), JointLoss([[0], [1, 2]], 3, 0.3)),
        # Head layers of the sub-models are out of reach of this one.
        "token matching": (matched, TokenMatchingLoss()),
    }
    module, loss = of_recipes[loss_name]
    data: BatchSource = known.take(torch.arange(15))
    validation: BatchSource = known.take(torch.arange(15, 20))
    if loss_name == "fusion":
        data, validation = (
            extract_features(models, known.take(part)) for part in (torch.arange(15), torch.arange(15, 20))
        )
    return TrainingTask(loss_name, module, loss, data, validation, Schedule(3, 8, 1e-2), seed=3)


LOSS_NAMES = ["own or other", "own or other and soft", "relations", "fusion", "fused and own", "token matching"]


def numbers(model: nn.Module) -> State:
    """Return a copy of a model's tensors, by name."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(one: State, other: State) -> None:
    """Assert that two states are equal bit for bit."""
    assert one.keys() == other.keys()
    assert not [name for name in one if not torch.equal(one[name], other[name])]


def without_seconds(epochs: Iterable[Epoch]) -> list[Epoch]:
    """Return epochs with their seconds set to zero."""
    return [replace(epoch, seconds=0.0) for epoch in epochs]


class DiedError(Exception):
    """The end of a training that is to die."""
