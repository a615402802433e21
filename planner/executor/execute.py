"""A plan becomes a bundle: cut, retrain, fuse, write.

Killed at any moment and started again, it goes on from the last finished epoch, and the bundle
is the one that an unbroken run writes.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from planner.check import check_sub_models
from planner.errors import InputError
from planner.executor.bundle import MANIFEST, WORK, kept_channels, read_bundle, write_bundle
from planner.network import data, recover
from planner.network.checkpoint import load_model
from planner.network.surgery import cut
from planner.network.vit import VisionTransformer
from planner.schema import Assignment, Plan, Profile, sha256_of
from planner.schema.base import Document, read_document, write_document

# Called with what is being trained, and how many of all epochs are done.
OnEpoch = Callable[[str, int, int], None]


class _Order(Document):
    """What a work folder belongs to: a run with another order must not go on from it."""

    plan_sha256: str
    weights_sha256: str
    epochs: int
    seed: int


def execute(
    plan: Plan,
    profile: Profile,
    out: Path,
    *,
    model: str | None = None,
    epochs: int = recover.RETRAIN.epochs,
    seed: int = 0,
    on_epoch: OnEpoch = lambda what, done, total: None,
) -> None:
    """Cut, retrain and fuse the sub-models of a plan, and write them as a bundle.

    Args:
        plan: What to do.
        profile: What the plan was made from.
        out: The bundle's folder; one that was begun by the same order is finished.
        model: The model's card; the shipped one of the profile's name unless given.
        epochs: How long each sub-model is retrained; the fusion, twice as long.
        seed: For all trainings.
        on_epoch: Called as the work begins and after each epoch.

    Raises:
        InputError: If the plan, the profile and the model do not go together, or the folder holds
            something else.
    """
    if sha256_of(profile) != plan.profile_sha256:
        raise InputError(
            f"the plan was made from another profile: profile_sha256 is {plan.profile_sha256[:12]}..., "
            f"got {sha256_of(profile)[:12]}...; name the right one with --profile."
        )
    problems = check_sub_models(plan, profile)
    if problems:
        raise InputError(f"the plan does not go with its profile: {problems[0]}.")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: must be a folder, got a file.")
    model = _absolute(model or profile.model)
    card, whole = load_model(model)
    if card.weights_sha256 != profile.weights_sha256:
        raise InputError(
            f"the profile was made of other weights: weights_sha256 is {profile.weights_sha256[:12]}..., "
            f"got {str(card.weights_sha256)[:12]}...; profile the model again."
        )
    order = _Order(plan_sha256=sha256_of(plan), weights_sha256=profile.weights_sha256, epochs=epochs, seed=seed)
    work = out / WORK
    if _is_done(out, order):
        # A run that was killed at the very end may have left its training states.
        shutil.rmtree(work, ignore_errors=True)
        return
    _claim(out, order)
    retrain = replace(recover.RETRAIN, epochs=epochs)
    fuse = replace(recover.FUSE, epochs=2 * epochs)
    total = retrain.epochs * len(plan.assignments) + fuse.epochs
    on_epoch("lessons", 0, total)
    jitter = data.Jitter.of(card.training)
    lessons = recover.prepare_lessons(whole, data.load(card, "train"), jitter, seed)
    done = 0

    def tick(what: str) -> Callable[[], None]:
        def on_one() -> None:
            nonlocal done
            done += 1
            on_epoch(what, done, total)

        return on_one

    sub_models = []
    for i, assignment in enumerate(plan.assignments):
        sub_model = cut_out(whole, profile, assignment)
        own = [profile.classes.index(name) for name in assignment.classes]
        state = work / f"{i:02d}.safetensors"
        recover.retrain(sub_model, own, lessons, retrain, seed + i, state, tick(assignment.device))
        sub_models.append(sub_model)
    hidden = profile.fusion_hidden
    fusion = recover.train_fusion(sub_models, lessons, hidden, fuse, seed, work / "fusion.safetensors", tick("fusion"))
    write_bundle(out, plan, profile, model, seed, epochs, sub_models, fusion)
    shutil.rmtree(work)


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


def _is_done(out: Path, order: _Order) -> bool:
    """Say whether the bundle is there already, made by the same order."""
    if not (out / MANIFEST).exists():
        return False
    bundle = read_bundle(out)
    same = _Order(
        plan_sha256=sha256_of(bundle.plan),
        weights_sha256=bundle.profile.weights_sha256,
        epochs=bundle.manifest.epochs,
        seed=bundle.manifest.seed,
    )
    if same != order:
        raise InputError(f"{out}: holds the bundle of another plan, seed or number of epochs; name another folder.")
    return True


def _claim(out: Path, order: _Order) -> None:
    """Note whose work folder it is, or make sure that it is ours."""
    path = out / WORK / "order.json"
    if path.exists():
        if read_document(path, _Order) != order:
            raise InputError(
                f"{out}: another plan, seed or number of epochs was begun there; delete it or name another folder."
            )
        return
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out}: must be empty or a bundle that was begun, got a folder with other files in it.")
    write_document(path, order)
