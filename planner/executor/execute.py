"""Execution of a plan: cut the sub-models, retrain and fuse them by a recipe, write a bundle.

A run that was killed at any moment and is started again resumes from the last finished epoch, and the bundle
is the one that an unbroken run writes. The test part of the data is not read.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from planner.errors import InputError, refuse_unless_finite, setting
from planner.executor.bundle import MANIFEST, WORK, kept_channels, write_bundle
from planner.executor.checkpoints import (
    DISTILLATION_DATA_FILE,
    RUN_CONFIG_FILE,
    CheckpointedTrainer,
    RunConfig,
    checkpointed_distillation_data,
    read_run_config,
)
from planner.executor.epoch_tasks import Trainer
from planner.executor.recovery_steps import TrainingSteps, read_steps
from planner.executor.time_budget import TrainingTimes, time_recipe
from planner.executor.trainers import InlineTrainer
from planner.network import data
from planner.network.checkpoint import load_model
from planner.network.distillation_data import DistillationData, split_validation
from planner.network.recipes import RECIPES, RECIPES_WITH_TEACHERS, Recipe, RecoveryTask, SubModelPart
from planner.network.recipes.recovery_task import DEFAULT_EPOCHS
from planner.network.side_by_side import work_side_by_side
from planner.network.surgery import Selection
from planner.network.training import Epoch
from planner.network.vit import VisionTransformer
from planner.rules.check import check_sub_models
from planner.schema import Assignment, ModelCard, Plan, Profile, did_you_mean, sha256_of
from planner.schema.base import check_can_write, remove_temporary, write_document
from planner.units import count_noun
from planner.workers import usable_cores

# Instead of a teacher's card: the teacher is fine-tuned for the classes of each device.
SUBSET_TEACHERS = "subset"

# Called with the name of the current step, and the work done and in total [s], as estimated.
OnProgress = Callable[[str, float, float], None]


def execute_plan(
    plan: Plan,
    profile: Profile,
    out: Path,
    *,
    model: str | None = None,
    recipe: str = "default",
    epochs: float | None = None,
    minutes: float | None = None,
    seed: int = 0,
    teacher: str | None = None,
    trainer: Trainer | None = None,
    on_progress: OnProgress = lambda what, done, total: None,
    on_budget: Callable[[float], None] = lambda epochs: None,
    on_teachers: Callable[[float], None] = lambda seconds: None,
) -> tuple[TrainingSteps, ...]:
    """Cut, retrain and fuse the sub-models of a plan, and write them as a bundle.

    Args:
        plan: The plan.
        profile: Profile that the plan was made from.
        out: Folder of the bundle; one that was begun with the same configuration is resumed.
        model: Card of the model; the shipped one of the profile's name unless given.
        recipe: Name of the recipe by which sub-models are retrained and fused.
        epochs: Budget of the recipe: how often each sub-model sees as many images as there are; 0: no training but that
            of the fusion.
        minutes: Instead of epochs: the largest number of epochs that fits, as estimated by timing the recipe, or a part
            of one; a folder that was begun keeps its number.
        seed: Seed of all trainings.
        teacher: Card of another whole model to learn from; the model itself unless given. Or "subset": copies of the
            model, fine-tuned for the classes of each device; their states are kept as those of other trainings.
        trainer: Executor of the trainings; this process, on one thread, unless given.
        on_progress: Called as the work begins, after the teacher's outputs for each copy of the images, and after each
            epoch.
        on_budget: Called with the number of epochs for which the minutes are enough.
        on_teachers: Called with the time that fine-tuning teachers of class subsets will take, as estimated [s].

    Returns:
        Accuracies on validation images after each step of each training, the fused one last; none if the bundle was
        finished before and its metrics are gone.

    Raises:
        InputError: If the plan, the profile, the model and the teacher do not go together, the folder holds
            something else, the budget is no number of epochs or minutes, or teachers of class subsets are wanted where
            nothing learns from them.
    """
    recover, trainer = find_recipe(recipe), trainer or InlineTrainer()
    if epochs is not None and minutes is not None:
        raise InputError(f"{setting('epochs')} and {setting('minutes')} both set the budget: give one of them.")
    refuse_unless_finite(epochs=epochs, minutes=minutes)
    check_plan(plan, profile)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: must be a folder, got a file.")
    model = _absolute(model or profile.model)
    card, whole = _load_whole(model, profile)
    subset_teachers = teacher == SUBSET_TEACHERS
    teacher_card, teacher_model = (card, whole) if not teacher or subset_teachers else _load_teacher(teacher, card)
    earlier = read_run_config(out)
    run_config = RunConfig(
        plan_sha256=sha256_of(plan),
        weights_sha256=profile.weights_sha256,
        teacher_sha256=str(teacher_card.weights_sha256),
        recipe=recipe,
        epochs=earlier.epochs if earlier and minutes is not None else DEFAULT_EPOCHS if epochs is None else epochs,
        seed=seed,
        subset_teachers=subset_teachers,
    )
    _check_subset_teachers(run_config)
    if earlier is not None:
        run_config.check_matches(out, earlier)
        if (out / MANIFEST).exists():
            # A run that was killed at the very end may have left its training states.
            shutil.rmtree(out / WORK, ignore_errors=True)
            remove_temporary(out)
            return read_steps(out)
    check_can_write(out / MANIFEST)
    samples, jitter = data.load(card, "train"), data.Jitter.of(card.training)
    parts = cut_parts(whole, profile, plan)

    def make_task(training: DistillationData, validation: DistillationData, epochs: float) -> RecoveryTask:
        hidden = profile.fusion_hidden
        return RecoveryTask(parts, whole, teacher_model, training, validation, hidden, epochs, seed, subset_teachers)

    with work_side_by_side(min(trainer.num_workers, usable_cores())):
        known_epochs = None if earlier is None and minutes is not None else run_config.epochs
        timed = time_recipe(recover, make_task, teacher_model, samples, jitter, seed, trainer.device, known_epochs)
        if earlier is None:
            if minutes is not None:
                run_config = run_config.replace(epochs=timed.max_epochs(minutes, trainer.num_workers))
                on_budget(run_config.epochs)
                _check_subset_teachers(run_config)
            write_document(out / WORK / RUN_CONFIG_FILE, run_config)
        epochs = run_config.epochs
        if subset_teachers:
            on_teachers(timed.first_call_seconds(epochs, trainer.num_workers))
        progress = _Progress(timed.training_times(epochs), timed.overhead_seconds(epochs), on_progress)
        all_data = checkpointed_distillation_data(
            out / WORK / DISTILLATION_DATA_FILE, teacher_model, samples, jitter, seed, epochs, progress.on_copy
        )
        task = make_task(*split_validation(all_data, seed=seed), epochs)
        fusion = recover(task, CheckpointedTrainer(out, trainer, progress))
    of_run = {"recipe", "epochs", "seed", "teacher_sha256", "subset_teachers"}
    provenance = {"model": model, **run_config.model_dump(include=of_run)}
    write_bundle(out, plan, profile, provenance, task.sub_models, fusion)
    shutil.rmtree(out / WORK)
    remove_temporary(out)
    return read_steps(out)


def find_recipe(name: str) -> Recipe:
    """Return the recipe of a name.

    Raises:
        InputError: If there is no recipe of this name.
    """
    if name not in RECIPES:
        raise InputError(
            f"recipe must be one of {', '.join(RECIPES)}, got {name!r}{did_you_mean(name, RECIPES) or '.'}"
        )
    return RECIPES[name]


def check_plan(plan: Plan, profile: Profile) -> None:
    """Check that a plan was made from a profile.

    Raises:
        InputError: If it was made from another, or its sub-models are none of the profile's model.
    """
    if sha256_of(profile) != plan.profile_sha256:
        raise InputError(
            f"the plan was made from another profile: profile_sha256 is {plan.profile_sha256[:12]}..., "
            f"got {sha256_of(profile)[:12]}...; name the right one with {setting('profile')}."
        )
    if problems := check_sub_models(plan, profile):
        raise InputError(f"the plan does not go with its profile: {problems[0]}.")


def _load_whole(model: str, profile: Profile) -> tuple[ModelCard, VisionTransformer]:
    """Return the model that the profile was made from, and its card."""
    card, whole = load_model(model)
    if card.weights_sha256 != profile.weights_sha256:
        raise InputError(
            f"the profile was made of other weights: weights_sha256 is {profile.weights_sha256[:12]}..., "
            f"got {str(card.weights_sha256)[:12]}...; profile the model again."
        )
    return card, whole


def _check_subset_teachers(run_config: RunConfig) -> None:
    """Check that something learns from teachers of class subsets, where there are any."""
    if run_config.subset_teachers and not (run_config.recipe in RECIPES_WITH_TEACHERS and run_config.epochs):
        raise InputError(
            f"{setting('teacher', SUBSET_TEACHERS)}: sub-models must learn from teachers, got {setting('recipe')} "
            f"{run_config.recipe} and {count_noun(run_config.epochs, 'epoch')} of retraining; take "
            f"{' or '.join(RECIPES_WITH_TEACHERS)}, and some {setting('epochs')}."
        )


def _load_teacher(name: str, card: ModelCard) -> tuple[ModelCard, VisionTransformer]:
    """Return another model and its card; it must have the whole model's classes and take the same images."""
    found, teacher = load_model(name)
    ours, theirs = card.architecture, found.architecture
    for what, expected, got in (
        ("classes", card.classes, found.classes),
        ("image_size", ours.image_size, theirs.image_size),
        ("in_channels", ours.in_channels, theirs.in_channels),
        ("preprocessing", card.preprocessing, found.preprocessing or card.preprocessing),
    ):
        if expected != got:
            raise InputError(
                f"{setting('teacher', name)}: {what} must be {card.model}'s, {_shown(expected)}, got {_shown(got)}."
            )
    return found, teacher


def _shown(value: object) -> str:
    text = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text if len(text) <= 100 else text[:97] + "..."


def cut_parts(whole: VisionTransformer, profile: Profile, plan: Plan) -> tuple[SubModelPart, ...]:
    """Return each device's sub-model, as cut and not yet retrained, its classes and what it keeps."""
    selections = [selection(profile, a) for a in plan.assignments]
    return tuple(
        SubModelPart(a.device, kept.cut(whole), tuple(profile.classes.index(name) for name in a.classes), kept)
        for a, kept in zip(plan.assignments, selections, strict=True)
    )


def selection(profile: Profile, assignment: Assignment) -> Selection:
    """Return what the sub-model of an assignment keeps of the whole model.

    Raises:
        InputError: If the plan narrows the embed dim and the profile does not say which dims to keep.
    """
    return Selection.of(assignment.kept_heads, kept_channels(profile, assignment), kept_dims(profile, assignment))


def kept_dims(profile: Profile, assignment: Assignment) -> tuple[int, ...]:
    """Return the embed dims that a sub-model keeps, as indices in the whole model, rising.

    Raises:
        InputError: If the plan narrows the embed dim and the profile does not say which dims to keep.
    """
    dims = profile.kept_embed_dims(assignment.embed_dim)
    if dims is None:
        raise InputError(
            f"{assignment.device}: embed_dim {assignment.embed_dim} needs a profile with embed_dim_order, which says "
            "which dims to keep; got none: profile the model again."
        )
    return tuple(sorted(dims))


def _absolute(model: str) -> str:
    """Return a card's path so that it means the same from any folder; a shipped model's name as it is."""
    return str(Path(model).resolve()) if model.endswith(".json") or "/" in model else model


class _Progress:
    """Progress over all work; a training that ended early counts as done when the next call of the recipe begins."""

    def __init__(self, training_times: TrainingTimes, overhead_s: float, on_progress: OnProgress) -> None:
        self.training_times, self.overhead_s, self.on_progress = training_times, overhead_s, on_progress
        self.total = overhead_s + sum(t.seconds for call in training_times for t in call)
        self.done = [[0.0] * len(call) for call in training_times]  # [s]
        self.on_copy(0, 1)

    def on_copy(self, done: int, copies: int) -> None:
        """Report how many copies of the images the teacher has seen."""
        self.on_progress("distillation data", self.overhead_s * done / copies, self.total)

    def __call__(self, call: int, position: int, epoch: Epoch) -> None:
        for earlier in range(call):
            self.done[earlier] = [training.seconds for training in self.training_times[earlier]]
        training = self.training_times[call][position]
        self.done[call][position] = training.start_seconds + min(epoch.epoch, training.epochs) * training.epoch_seconds
        done = self.overhead_s + sum(map(sum, self.done))
        self.on_progress(epoch.training, min(done, self.total), self.total)
