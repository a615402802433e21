"""A plan becomes a bundle: cut, retrain and fuse by a recipe, write.

Killed at any moment and started again, it goes on from the last finished epoch, and the bundle
is the one that an unbroken run writes. The test part of the data is not read.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from planner.errors import InputError
from planner.executor.bundle import MANIFEST, WORK, kept_channels, write_bundle
from planner.executor.checkpoints import (
    LESSONS,
    ORDER,
    CheckpointedTrainer,
    RunConfig,
    checkpointed_distillation_data,
    run_config_of,
)
from planner.executor.epoch_tasks import Trainer
from planner.executor.time_budget import Efforts, time_recipe
from planner.executor.trainers import InlineTrainer
from planner.network import data
from planner.network.checkpoint import load_model
from planner.network.distillation_data import split_validation
from planner.network.recipes import RECIPES, Recipe, RecoveryTask, SubModelPart
from planner.network.recipes.job import EPOCHS
from planner.network.surgery import cut
from planner.network.training import Epoch
from planner.network.vit import VisionTransformer
from planner.rules.check import check_sub_models
from planner.schema import Assignment, ModelCard, Plan, Profile, nearest, sha256_of
from planner.schema.base import write_document

# Called with what is being trained, and how much of all the work is done: both in the seconds of a trial.
OnProgress = Callable[[str, float, float], None]


def execute(
    plan: Plan,
    profile: Profile,
    out: Path,
    *,
    model: str | None = None,
    recipe: str = "default",
    epochs: int | None = None,
    minutes: float | None = None,
    seed: int = 0,
    teacher: str | None = None,
    means: Trainer | None = None,
    on_progress: OnProgress = lambda what, done, total: None,
    on_budget: Callable[[int], None] = lambda epochs: None,
) -> None:
    """Cut, retrain and fuse the sub-models of a plan, and write them as a bundle.

    Args:
        plan: What to do.
        profile: What the plan was made from.
        out: The bundle's folder; one that was begun by the same order is finished.
        model: The model's card; the shipped one of the profile's name unless given.
        recipe: How sub-models are retrained and fused.
        epochs: The recipe's budget: how often each sub-model sees as many images as there are.
        minutes: Instead of epochs: the most epochs that fit, as a trial of the recipe says; a folder that was begun
            keeps its number.
        seed: For all trainings.
        teacher: The card of another whole model to learn from; the model itself unless given.
        means: Who trains; this process, on one thread, unless given.
        on_progress: Called as the work begins, after each copy of the images that the teacher was asked about, and
            after each epoch.
        on_budget: Called with the number of epochs that minutes are enough for.

    Raises:
        InputError: If the plan, the profile, the model and the teacher do not go together, the folder holds
            something else, or the minutes are too few.
    """
    told, means = recipe_of(recipe), means or InlineTrainer()
    if epochs is not None and minutes is not None:
        raise InputError("--epochs and --minutes both set the budget: give one of them.")
    _check_plan(plan, profile)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: must be a folder, got a file.")
    model = _absolute(model or profile.model)
    card, whole = _whole(model, profile)
    teacher_card, teaching = _taught_by(teacher, card) if teacher else (card, whole)
    before = run_config_of(out)
    order = RunConfig(
        plan_sha256=sha256_of(plan),
        weights_sha256=profile.weights_sha256,
        teacher_sha256=str(teacher_card.weights_sha256),
        recipe=recipe,
        epochs=before.epochs if before and minutes is not None else EPOCHS if epochs is None else epochs,
        seed=seed,
    )
    if before is not None:
        order.check_is(out, before)
        if (out / MANIFEST).exists():
            # A run that was killed at the very end may have left its training states.
            shutil.rmtree(out / WORK, ignore_errors=True)
            return
    samples, jitter = data.load(card, "train"), data.Jitter.of(card.training)
    parts = cut_parts(whole, profile, plan)
    trial = time_recipe(told, parts, teaching, samples, jitter, profile.fusion_hidden, seed, means.device)
    if before is None:
        if minutes is not None:
            order = order.replace(epochs=trial.most_epochs(minutes, means.width))
            on_budget(order.epochs)
        write_document(out / WORK / ORDER, order)
    progress = _Progress(trial.efforts(order.epochs), trial.outside_seconds(order.epochs), on_progress)
    lessons = checkpointed_distillation_data(
        out / WORK / LESSONS, teaching, samples, jitter, seed, order.epochs, progress.on_copy
    )
    learned, held = split_validation(lessons, seed=seed)
    job = RecoveryTask(parts, teaching, learned, held, profile.fusion_hidden, order.epochs, seed)
    fusion = told(job, CheckpointedTrainer(out, means, progress))
    made = {"model": model, **order.model_dump(include={"recipe", "epochs", "seed", "teacher_sha256"})}
    write_bundle(out, plan, profile, made, job.sub_models, fusion)
    shutil.rmtree(out / WORK)


def recipe_of(name: str) -> Recipe:
    """Return a recipe.

    Raises:
        InputError: If there is none of this name.
    """
    if name not in RECIPES:
        raise InputError(f"recipe must be one of {', '.join(RECIPES)}, got {name!r}{nearest(name, RECIPES) or '.'}")
    return RECIPES[name]


def _check_plan(plan: Plan, profile: Profile) -> None:
    if sha256_of(profile) != plan.profile_sha256:
        raise InputError(
            f"the plan was made from another profile: profile_sha256 is {plan.profile_sha256[:12]}..., "
            f"got {sha256_of(profile)[:12]}...; name the right one with --profile."
        )
    if problems := check_sub_models(plan, profile):
        raise InputError(f"the plan does not go with its profile: {problems[0]}.")


def _whole(model: str, profile: Profile) -> tuple[ModelCard, VisionTransformer]:
    """Return the model that the profile was made of."""
    card, whole = load_model(model)
    if card.weights_sha256 != profile.weights_sha256:
        raise InputError(
            f"the profile was made of other weights: weights_sha256 is {profile.weights_sha256[:12]}..., "
            f"got {str(card.weights_sha256)[:12]}...; profile the model again."
        )
    return card, whole


def _taught_by(name: str, card: ModelCard) -> tuple[ModelCard, VisionTransformer]:
    """Return another model, which must know the same classes, and see images as the whole model does."""
    found, teacher = load_model(name)
    ours, theirs = card.architecture, found.architecture
    for what, must, got in (
        ("classes", card.classes, found.classes),
        ("image_size", ours.image_size, theirs.image_size),
        ("in_channels", ours.in_channels, theirs.in_channels),
        ("preprocessing", card.preprocessing, found.preprocessing or card.preprocessing),
    ):
        if must != got:
            raise InputError(f"--teacher {name}: {what} must be {card.model}'s, {_shown(must)}, got {_shown(got)}.")
    return found, teacher


def _shown(value: object) -> str:
    text = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text if len(text) <= 100 else text[:97] + "..."


def cut_parts(whole: VisionTransformer, profile: Profile, plan: Plan) -> tuple[SubModelPart, ...]:
    """Return each device's sub-model, as cut and not yet retrained, and its classes."""
    return tuple(
        SubModelPart(a.device, cut_out(whole, profile, a), tuple(profile.classes.index(name) for name in a.classes))
        for a in plan.assignments
    )


def cut_out(whole: VisionTransformer, profile: Profile, assignment: Assignment) -> VisionTransformer:
    """Return the sub-model of an assignment, as cut and not yet retrained.

    Raises:
        InputError: If the plan narrows the embed dim and the profile does not say which dims to keep.
    """
    dims = profile.kept_embed_dims(assignment.embed_dim)
    if dims is None:
        raise InputError(
            f"{assignment.device}: embed_dim {assignment.embed_dim} needs a profile with embed_dim_order, which says "
            f"which of {whole.shape.embed_dim} dims to keep; got none: profile the model again."
        )
    return cut(whole, assignment.kept_heads, kept_channels(profile, assignment), dims)


def _absolute(model: str) -> str:
    """Return a card's path so that it means the same from any folder; a shipped model's name as it is."""
    return str(Path(model).resolve()) if model.endswith(".json") or "/" in model else model


class _Progress:
    """How much of all the work is done; trainings that end early count as done when those beside them are."""

    def __init__(self, efforts: Efforts, outside_s: float, on_progress: OnProgress) -> None:
        self.efforts, self.outside_s, self.on_progress = efforts, outside_s, on_progress
        self.total = outside_s + sum(effort.epochs * effort.seconds for call in efforts for effort in call)
        self.done = [[0] * len(call) for call in efforts]
        self.on_copy(0, 1)

    def on_copy(self, done: int, copies: int) -> None:
        """Say how many copies of the images the teacher was asked about."""
        self.on_progress("lessons", self.outside_s * done / copies, self.total)

    def __call__(self, call: int, position: int, epoch: Epoch) -> None:
        for earlier in range(call):
            self.done[earlier] = [effort.epochs for effort in self.efforts[earlier]]
        self.done[call][position] = epoch.epoch
        pairs = zip(self.done, self.efforts, strict=True)
        done = self.outside_s + sum(d * e.seconds for row, known in pairs for d, e in zip(row, known, strict=True))
        self.on_progress(epoch.training, min(done, self.total), self.total)
