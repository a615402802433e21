"""Execution of a plan by a recipe, tested on the test part, as one job for a process of its own."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from benchmarks.accuracy.ablations import recipe_of
from benchmarks.accuracy.settings import Budget
from benchmarks.accuracy.store import code_hash, result_key, write_json
from planner.executor.bundle import planned_shape
from planner.executor.execute import cut_parts
from planner.network import counts, data
from planner.network.checkpoint import load_card, load_model, whole_shape
from planner.network.distillation_data import NUM_COPIES, DistillationData, make_distillation_data, split_validation
from planner.network.evaluation import accuracy_by_class, apply_in_batches, top1_accuracy
from planner.network.fusion import Fusion
from planner.network.recipes import RecoveryTask, SubModelPart
from planner.network.training import Epoch, TrainingTask, train
from planner.network.vit import VisionTransformer
from planner.schema import Plan, Profile, read_document
from planner.schema.base import write_bytes

_NETWORK = (
    *("training*", "distillation_*", "losses", "joint_model", "fusion", "surgery", "vit", "evaluation", "data/*"),
    "recipes/recovery_task",
)
_MEASUREMENT = ("planner/network/data/*.py", "planner/network/evaluation.py")
_COMMON = tuple(f"planner/network/{name}.py" for name in _NETWORK)
_OF_RECIPE = {"devit": ("devit", "class_samples"), "ed-vit": ("ed_vit", "class_samples")}
_ABLATIONS = "benchmarks/accuracy/ablations.py"


@dataclass(frozen=True)
class Execution:
    """Job that executes one plan: it holds paths instead of their contents, so that it is sent quickly."""

    card: str
    profile: Path
    plan: Path
    recipe: str
    budget: Budget
    seed: int
    distillation_data: Path
    out: Path

    @property
    def name(self) -> str:
        """Label of the job in a progress bar."""
        return f"{Path(self.card).parent.name} {self.plan.stem[:4]}, {self.recipe}, seed {self.seed}"


@dataclass(frozen=True)
class Outcome:
    """Accuracies and effort of an execution; the names of the fields are keys of the cached files."""

    fused: float
    by_class: list[float]
    without: dict[str, float]  # lost device -> fused accuracy
    images: dict[str, int]  # device -> training images of its sub-model in all epochs that were run
    seconds: float

    @property
    def worst(self) -> float:
        """Accuracy of the worst class."""
        return min(self.by_class)

    @property
    def lost(self) -> float | None:
        """Lowest accuracy when one device is lost; None if there is only one."""
        return min(self.without.values()) if len(self.without) > 1 else None


def execution_key(plan: Plan, profile: Profile, weights_sha256: str, recipe: str, budget: Budget, seed: int) -> str:
    """Return the cache key of an execution's outcome: a hash of everything that determines it, code included."""
    sub_models = [[a.device, a.classes, a.embed_dim, a.kept_heads, a.kept_channel_groups] for a in plan.assignments]
    cut_by = [profile.channel_groups, profile.embed_dim_order, profile.classes, profile.fusion_hidden]
    return result_key(sub_models, cut_by, weights_sha256, recipe, asdict(budget), seed, _code(recipe))


@lru_cache
def _code(recipe: str) -> str:
    names = _OF_RECIPE.get(recipe, ("default",))
    ablation = () if recipe in ("default", *_OF_RECIPE) else (_ABLATIONS,)
    return code_hash((*_COMMON, *(f"planner/network/recipes/{name}.py" for name in names), *ablation))


def prepare_teacher(card_path: str, budget: Budget, path: Path, on_copy: Callable[[int, int], None]) -> None:
    """Write the distillation data with the whole model as the teacher, unless the file exists."""
    if path.exists():
        return
    card, whole = load_model(card_path)
    samples = data.load(card, "train", budget.per_class)
    copies = min(NUM_COPIES, budget.epochs)
    distillation = make_distillation_data(whole, samples, data.Jitter.of(card.training), 0, copies, on_copy)
    answers = distillation.teacher_logits
    # Its models have few classes.
    assert isinstance(answers, Tensor)
    tensors = {"moves": distillation.moves, "answers": answers, "tokens": distillation.teacher_features}
    write_bytes(path, save(tensors))


def whole_key(weights_sha256: str) -> str:
    """Return the cache key of the whole model's accuracy: a hash of its weights, and of what reads and measures."""
    return result_key(weights_sha256, code_hash(_MEASUREMENT))


def measure_whole(card_path: str) -> dict[str, Any]:
    """Return the whole model's accuracy on the test part."""
    card, whole = load_model(card_path)
    test = data.load(card, "test")
    by_class = accuracy_by_class(apply_in_batches(whole, test.images), test.labels)
    return {"accuracy": top1_accuracy(apply_in_batches(whole, test.images), test.labels), "by_class": by_class}


@lru_cache
def _teacher_data(
    card_path: str, per_class: int | None, path: Path
) -> tuple[VisionTransformer, DistillationData, DistillationData]:
    """Return the teacher, and the training and the validation data."""
    card, whole = load_model(card_path)
    samples = data.load(card, "train", per_class)
    stored = load_file(path)
    all_data = DistillationData(samples.images, samples.labels, stored["moves"], stored["answers"], stored["tokens"])
    return (whole, *split_validation(all_data))


def execute(job: Execution) -> None:
    """Execute a job and write its outcome."""
    torch.set_num_threads(1)
    plan, profile = read_document(job.plan, Plan), read_document(job.profile, Profile)
    teacher, train_data, validation = _teacher_data(job.card, job.budget.per_class, job.distillation_data)
    parts = cut_parts(teacher, profile, plan)
    images: Counter[str] = Counter()
    start = time.perf_counter()
    recipe = recipe_of(job.recipe)
    task = RecoveryTask(
        parts, teacher, teacher, train_data, validation, profile.fusion_hidden, job.budget.epochs, job.seed
    )

    def train_and_count(tasks: Sequence[TrainingTask]) -> None:
        _train(tasks, [part.device for part in parts], images)

    fusion = recipe(task, train_and_count)
    seconds = time.perf_counter() - start
    write_json(job.out, asdict(_test_outcome(job.card, parts, fusion, dict(images), seconds)))


def _train(tasks: Sequence[TrainingTask], devices: list[str], images: Counter[str]) -> None:
    """Train, and count the images that each sub-model learns from."""
    for task in tasks:
        epochs: list[Epoch] = []
        train(task, on_epoch=epochs.append)
        # A training without a device's name trains all sub-models together, unless it is a fusion of their features.
        trained = [task.name] if task.name in devices else devices
        if not isinstance(task.module, Fusion):
            # The first is the start.
            images.update({device: (len(epochs) - 1) * len(task.data) for device in trained})


def _test_outcome(
    card_path: str, parts: tuple[SubModelPart, ...], fusion: Fusion, images: dict[str, int], seconds: float
) -> Outcome:
    test = data.load(load_card(card_path), "test")
    features = torch.cat([apply_in_batches(part.sub_model.features, test.images) for part in parts], dim=1)
    logits = apply_in_batches(fusion, features)
    without = {}
    for d, part in enumerate(parts):
        present = torch.ones(len(features), len(parts))
        present[:, d] = 0
        with torch.inference_mode():
            without[part.device] = top1_accuracy(fusion(features, present), test.labels)
    by_class = accuracy_by_class(logits, test.labels)
    return Outcome(top1_accuracy(logits, test.labels), by_class, without, images, seconds)


def training_macs(job: Execution) -> float:
    """Return the approximate work of a job in MACs, which the progress bar counts."""
    plan, profile = read_document(job.plan, Plan), read_document(job.profile, Profile)
    whole = whole_shape(load_card(job.card))
    shapes = [planned_shape(load_card(job.card), profile, a) for a in plan.assignments]
    teacher = counts.exact(whole).macs if job.recipe == "devit" else 0
    return float(sum(3 * counts.exact(s).macs + teacher for s in shapes) * job.budget.epochs)
