"""Small trainings for tests of the loop: a network on labels with noise, and each objective of the recipes."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from planner.network.data import Jitter, Samples
from planner.network.distillation_data import Batch, distillation_data, find_features
from planner.network.fusion import Fusion
from planner.network.joint_model import JointLoss, JointModel, MatchedJointModel, TokenMatchingLoss
from planner.network.losses import DistillationLoss, FusionLoss, LabelLoss, Loss, OwnOrOtherLoss, RelationLoss
from planner.network.training import Schedule, TrainingTask
from planner.network.vit import Shape, VisionTransformer, initialise
from tests.helpers.plain_vit import random_images, random_model

SHAPE = Shape(4, 2, 2, 3, embed_dim=8, head_dim=4, num_heads=(2, 0, 1), hidden_dim=(5, 3, 0))
IMAGES = random_images(SHAPE, 20)
TARGETS = torch.arange(20) % 3
SCHEDULE = Schedule(epochs=4, batch_size=8)


def generator(seed=0):
    """Return a seeded generator."""
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class Noisy:
    """Inputs with random noise on them, and labels."""

    inputs: Tensor
    labels: Tensor

    def __len__(self):
        return len(self.labels)

    def batch(self, indices, generator):
        """Return inputs with noise; no teacher says anything."""
        inputs, silence = self.inputs[indices], torch.empty(len(indices), 0)
        noise = 0.1 * torch.randn(inputs.shape, generator=generator)
        return Batch(inputs + noise, self.labels[indices], silence, silence)


class Scripted(Loss):
    """Labels while it is trained; in eval mode, one of these values after the other."""

    def __init__(self, values):
        super().__init__()
        self.values = list(values)

    def forward(self, module, batch, generator):
        if module.training:
            return F.cross_entropy(module(batch.inputs), batch.labels)
        assert not torch.is_grad_enabled()
        return torch.tensor(self.values.pop(0))


def fresh(kind="vit", held=0, schedule=SCHEDULE, seed=3):
    """Return a training of an untrained network on labels, so many of 20 samples held out."""
    if kind == "vit":
        model, inputs = VisionTransformer(SHAPE), IMAGES
        initialise(model, generator(5))
    else:
        model, inputs = Fusion([20, 12], hidden=6, num_classes=3), IMAGES.flatten(1)
        with torch.no_grad():
            for p in (*model.fc1.parameters(), *model.fc2.parameters()):
                p.normal_(generator=generator(5))
            model.standardise(inputs)
    learned = Noisy(inputs[: 20 - held], TARGETS[: 20 - held])
    return TrainingTask(
        kind, model, LabelLoss(), learned, Noisy(inputs[20 - held :], TARGETS[20 - held :]), schedule, seed
    )


def lessons():
    """Return 20 images in three copies, with the answers of a random teacher, and the teacher."""
    teacher = random_model(SHAPE)
    return distillation_data(teacher, Samples(IMAGES, TARGETS), Jitter(0.3, 5.0), seed=0, num_copies=3), teacher


def real(kind):
    """Return a training with one of the recipes' objectives, a quarter of the images held out."""
    known, teacher = lessons()
    models = [random_model(SHAPE, seed) for seed in (1, 2)]
    fusion = Fusion([8, 8], hidden=4, num_classes=3)
    for p in (*fusion.fc1.parameters(), *fusion.fc2.parameters()):
        nn.init.normal_(p, generator=generator(3))
    matched = MatchedJointModel(models, fusion, teacher.shape.embed_dim)
    nn.init.normal_(matched.match.weight, generator=generator(4))
    nn.init.zeros_(matched.match.bias)
    module, objective = {
        "own or other": (models[0], OwnOrOtherLoss([0], 3)),
        "own or other and soft": (models[0], DistillationLoss([0, 2], 3)),
        "relations": (models[0], RelationLoss([0, 1, 2], teacher)),
        "fusion": (fusion, FusionLoss()),
        "fused and own": (JointModel(models, fusion), JointLoss([[0], [1, 2]], 3, 0.3)),
        # Head layers of the sub-models are out of reach of this one.
        "token matching": (matched, TokenMatchingLoss()),
    }[kind]
    data, held = known.take(torch.arange(15)), known.take(torch.arange(15, 20))
    if kind == "fusion":
        data, held = (find_features(models, part) for part in (data, held))
    return TrainingTask(kind, module, objective, data, held, Schedule(3, 8, 1e-2), seed=3)


REAL = ["own or other", "own or other and soft", "relations", "fusion", "fused and own", "token matching"]


def numbers(model):
    """Return all of a model's numbers, by name."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(one, other):
    """Two states are equal bit for bit."""
    assert one.keys() == other.keys()
    assert not [name for name in one if not torch.equal(one[name], other[name])]


def without_seconds(epochs):
    """Return epochs as if they took no time."""
    return [replace(epoch, seconds=0.0) for epoch in epochs]


class DiedError(Exception):
    """Raised where a run is to die."""
