"""A plan carried out by a recipe and measured on the test part, as one job that a process of its own can do."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from benchmarks.accuracy.ablations import recipe_of
from benchmarks.accuracy.settings import Budget
from benchmarks.accuracy.store import code_of, key_of, write_json
from planner.executor.bundle import kept_channels, planned_shape
from planner.network import counts, data
from planner.network.checkpoint import load_card, load_model, whole_shape
from planner.network.distillation_data import NUM_COPIES, DistillationData, distillation_data, split_validation
from planner.network.evaluation import batched, share_right, share_right_by_class
from planner.network.fusion import Fusion
from planner.network.recipes import RecoveryTask, SubModelPart
from planner.network.surgery import cut
from planner.network.training import Epoch, TrainingTask, train
from planner.network.vit import VisionTransformer
from planner.schema import Plan, Profile, read_document
from planner.schema.base import write_bytes

_NETWORK = ("training*", "lessons", "objectives", "joint", "distil", "fusion", "surgery", "vit", "evaluate", "data/*")
_COMMON = tuple(f"planner/network/{name}.py" for name in (*_NETWORK, "recipes/job"))
_OF_RECIPE = {"devit": ("devit", "subset"), "ed-vit": ("ed_vit", "subset")}
_ABLATIONS = "benchmarks/accuracy/ablations.py"


@dataclass(frozen=True)
class Execution:
    """A job: paths instead of what they hold, so that it is sent quickly."""

    card: str
    profile: Path
    plan: Path
    recipe: str
    budget: Budget
    seed: int
    lessons: Path
    out: Path

    @property
    def name(self) -> str:
        """What a progress bar says of it."""
        return f"{Path(self.card).parent.name} {self.plan.stem[:4]}, {self.recipe}, seed {self.seed}"


@dataclass(frozen=True)
class Outcome:
    """What came out; `images` are those that each sub-model has learned from, in all epochs that were run."""

    fused: float
    by_class: list[float]
    without: dict[str, float]  # device that is lost -> fused accuracy
    images: dict[str, int]
    seconds: float

    @property
    def worst(self) -> float:
        """The accuracy of the worst class."""
        return min(self.by_class)

    @property
    def lost(self) -> float | None:
        """The lowest accuracy when one device is lost; None where there is but one."""
        return min(self.without.values()) if len(self.without) > 1 else None


def execution_key(plan: Plan, profile: Profile, weights_sha256: str, recipe: str, budget: Budget, seed: int) -> str:
    """Return what the outcome of an execution is known by: all that determines it, code included."""
    kept = [[a.device, a.classes, a.embed_dim, a.kept_heads, a.kept_channel_groups] for a in plan.assignments]
    cut_by = [profile.channel_groups, profile.embed_dim_order, profile.classes, profile.fusion_hidden]
    return key_of(kept, cut_by, weights_sha256, recipe, asdict(budget), seed, _code(recipe))


@lru_cache
def _code(recipe: str) -> str:
    names = _OF_RECIPE.get(recipe, ("default",))
    ablation = () if recipe in ("default", *_OF_RECIPE) else (_ABLATIONS,)
    return code_of((*_COMMON, *(f"planner/network/recipes/{name}.py" for name in names), *ablation))


def prepare(card_path: str, budget: Budget, path: Path, on_copy: Callable[[int, int], None]) -> None:
    """Write what the whole model says of every copy of the training images, unless it is known."""
    if path.exists():
        return
    card, whole = load_model(card_path)
    samples = data.load(card, "train", budget.per_class)
    copies = min(NUM_COPIES, budget.epochs)
    lessons = distillation_data(whole, samples, data.Jitter.of(card.training), 0, copies, on_copy)
    tensors = {"moves": lessons.moves, "answers": lessons.answers, "tokens": lessons.tokens}
    write_bytes(path, save(tensors))


def measure_whole(card_path: str) -> dict[str, Any]:
    """Return what the whole model is worth on the test part."""
    card, whole = load_model(card_path)
    test = data.load(card, "test")
    by_class = share_right_by_class(batched(whole, test.images), test.labels)
    return {"accuracy": share_right(batched(whole, test.images), test.labels), "by_class": by_class}


@lru_cache
def _taught(
    card_path: str, per_class: int | None, path: Path
) -> tuple[VisionTransformer, DistillationData, DistillationData]:
    """Return the teacher, and the lessons that are learned and held out."""
    card, whole = load_model(card_path)
    samples = data.load(card, "train", per_class)
    known = load_file(path)
    lessons = DistillationData(samples.images, samples.labels, known["moves"], known["answers"], known["tokens"])
    return (whole, *split_validation(lessons))


def execute(job: Execution) -> None:
    """Do a job and write its outcome."""
    torch.set_num_threads(1)
    plan, profile = read_document(job.plan, Plan), read_document(job.profile, Profile)
    teacher, lessons, held = _taught(job.card, job.budget.per_class, job.lessons)
    parts = tuple(
        SubModelPart(
            a.device,
            cut(teacher, a.kept_heads, kept_channels(profile, a), profile.kept_embed_dims(a.embed_dim)),
            tuple(profile.classes.index(name) for name in a.classes),
        )
        for a in plan.assignments
    )
    images: Counter[str] = Counter()
    start = time.perf_counter()
    recipe = recipe_of(job.recipe)
    task = RecoveryTask(parts, teacher, lessons, held, profile.fusion_hidden, job.budget.epochs, job.seed)
    fusion = recipe(task, lambda trainings: _train(trainings, [p.device for p in parts], images))
    seconds = time.perf_counter() - start
    write_json(job.out, asdict(_judged(job.card, parts, fusion, dict(images), seconds)))


def _train(trainings: Sequence[TrainingTask], devices: list[str], images: Counter[str]) -> None:
    for training in trainings:
        epochs: list[Epoch] = []
        train(training, on_epoch=epochs.append)
        # What is not one device's alone is all sub-models' together, but for a fusion of features.
        of = [training.name] if training.name in devices else devices
        if not isinstance(training.module, Fusion):
            images.update({device: len(epochs) * len(training.data) for device in of})


def _judged(
    card_path: str, parts: tuple[SubModelPart, ...], fusion: Fusion, images: dict[str, int], seconds: float
) -> Outcome:
    test = data.load(load_card(card_path), "test")
    features = torch.cat([batched(part.sub_model.features, test.images) for part in parts], dim=1)
    logits = batched(fusion, features)
    without = {}
    for d, part in enumerate(parts):
        present = torch.ones(len(features), len(parts))
        present[:, d] = 0
        with torch.inference_mode():
            without[part.device] = share_right(fusion(features, present), test.labels)
    by_class = share_right_by_class(logits, test.labels)
    return Outcome(share_right(logits, test.labels), by_class, without, images, seconds)


def training_macs(job: Execution) -> float:
    """Return about how much work a job is, in MACs: what the progress bar counts."""
    plan, profile = read_document(job.plan, Plan), read_document(job.profile, Profile)
    whole = whole_shape(load_card(job.card))
    shapes = [planned_shape(load_card(job.card), profile, a) for a in plan.assignments]
    teacher = counts.exact(whole).macs if job.recipe == "devit" else 0
    return float(sum(3 * counts.exact(s).macs + teacher for s in shapes) * job.budget.epochs)
