"""The bundle: everything that is needed to run and to check a plan's sub-models, in files that are never unpickled.

manifest.json           the SHA-256 of each file below
plan.json, profile.json the plan, and the profile that it was made from
devices/NN-NAME.safetensors   one sub-model for each used device
fusion.safetensors      the fusion
metrics.jsonl           a line for each epoch of each training; it holds seconds, so the manifest has no hash of it
work/                   training states while the plan is being executed; removed when it is done
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from safetensors.torch import save
from torch import nn

from planner.errors import InputError
from planner.files import is_file, sha256_of_file
from planner.library import read_plan
from planner.network.checkpoint import load_model, loaded_module, whole_shape
from planner.network.fusion import Fusion
from planner.network.vit import Shape, VisionTransformer
from planner.rules.check import check_sub_models
from planner.schema import Manifest, ModelCard, Plan, Profile, SubModel, read_document, sha256_of, to_json
from planner.schema.base import write_bytes, write_text

MANIFEST, PLAN, PROFILE, FUSION = "manifest.json", "plan.json", "profile.json", "fusion.safetensors"
METRICS, WORK = "metrics.jsonl", "work"


@dataclass(frozen=True)
class Bundle:
    """Content of a complete bundle."""

    path: Path  # of its folder
    manifest: Manifest
    plan: Plan
    profile: Profile
    card: ModelCard
    whole: VisionTransformer
    sub_models: tuple[VisionTransformer, ...]  # in the order of the plan's assignments
    fusion: Fusion


def kept_channels(profile: Profile, sub_model: SubModel) -> list[list[int]]:
    """Return the hidden channels that a sub-model keeps in each block."""
    groups = profile.channel_groups
    return [[c for g in block for c in groups[l][g]] for l, block in enumerate(sub_model.kept_channel_groups)]


def sub_model_file(position: int, device: str) -> str:
    """Return the path of a device's sub-model: its position in the plan, and as much of its name as a path may hold."""
    return f"devices/{position:02d}-{re.sub(r'[^A-Za-z0-9._-]+', '_', device)[:60]}.safetensors"


def write_module(path: Path, module: nn.Module) -> None:
    """Write a network's tensors as safetensors, whole or not at all."""
    write_bytes(path, save(module.state_dict()))


def write_bundle(
    out: Path,
    plan: Plan,
    profile: Profile,
    provenance: Mapping[str, str | int],
    sub_models: Sequence[VisionTransformer],
    fusion: Fusion,
) -> None:
    """Write all files of a bundle, the manifest last: a bundle without one is unfinished.

    Args:
        out: Folder of the bundle.
        plan: The plan that was executed.
        profile: Profile that the plan was made from.
        provenance: The manifest's model, recipe, epochs, seed, teacher_sha256 and subset_teachers.
        sub_models: Sub-models in the order of the plan's assignments.
        fusion: Fusion of their features.
    """
    files = {a.device: sub_model_file(i, a.device) for i, a in enumerate(plan.assignments)}
    for file, sub_model in zip(files.values(), sub_models, strict=True):
        write_module(out / file, sub_model)
    write_module(out / FUSION, fusion)
    write_text(out / PLAN, to_json(plan))
    write_text(out / PROFILE, to_json(profile))
    hashes = {file: sha256_of_file(out / file) for file in (PLAN, PROFILE, FUSION, *files.values())}
    manifest = Manifest.model_validate({**provenance, "devices": files, "sha256": hashes})
    write_text(out / MANIFEST, to_json(manifest))


def bundle_manifest(path: Path) -> Manifest:
    """Read a bundle's manifest alone.

    Raises:
        InputError: If the bundle is unfinished.
    """
    if not (path / MANIFEST).exists():
        raise InputError(f"{path}: must be a bundle, got no {MANIFEST}; if planner execute was stopped, run it again.")
    return read_document(path / MANIFEST, Manifest)


def read_bundle(path: Path) -> Bundle:
    """Read a bundle.

    Raises:
        InputError: If it is unfinished, or a file is missing, changed or not what the plan says.
    """
    manifest = bundle_manifest(path)
    for file, expected in manifest.sha256.items():
        if (path / file).is_symlink() or not (path / file).resolve().is_relative_to(path.resolve()):
            raise InputError(f"{path / MANIFEST}: files must lie in the bundle, got {file!r}.")
        if not is_file(path / file):
            raise InputError(f"{path / file}: no such file, but the manifest names it.")
        actual = sha256_of_file(path / file)
        if actual != expected:
            raise InputError(
                f"{path / file}: SHA-256 must be {expected[:12]}..., got {actual[:12]}...: the file was changed."
            )
    for needed in (PLAN, PROFILE, FUSION, *manifest.devices.values()):
        if needed not in manifest.sha256:
            raise InputError(f"{path / MANIFEST}: sha256 must name {needed}, got {sorted(manifest.sha256)}.")
    plan, profile = read_plan(path / PLAN), read_document(path / PROFILE, Profile)
    _check_plan(path, plan, profile, manifest)
    try:
        card, whole = load_model(manifest.model)
    except InputError as error:
        raise InputError(f"{path / MANIFEST}: {error}") from None
    if card.weights_sha256 != profile.weights_sha256:
        raise InputError(f"{path}: was made of other weights than those of model {manifest.model!r}.")
    widths = [a.embed_dim for a in plan.assignments]
    fusion = loaded_module(
        path / FUSION, lambda: Fusion(widths, profile.fusion_hidden, len(profile.classes)), manifest.sha256[FUSION]
    )
    sub_models = []
    for a in plan.assignments:
        file, make = manifest.devices[a.device], partial(VisionTransformer, planned_shape(card, profile, a))
        sub_models.append(loaded_module(path / file, make, manifest.sha256[file]))
    return Bundle(path, manifest, plan, profile, card, whole, tuple(sub_models), fusion)


def opened(bundle: Path | Bundle) -> Bundle:
    """Return a bundle that was read, or read the one in a folder.

    Raises:
        InputError: As `read_bundle` does.
    """
    return bundle if isinstance(bundle, Bundle) else read_bundle(bundle)


def _check_plan(path: Path, plan: Plan, profile: Profile, manifest: Manifest) -> None:
    """Check that plan, profile and manifest of a bundle belong together."""
    if sha256_of(profile) != plan.profile_sha256:
        raise InputError(f"{path / PLAN}: was made from another profile than {PROFILE} beside it.")
    if problems := check_sub_models(plan, profile):
        raise InputError(f"{path / PLAN}: {problems[0]}.")
    if list(manifest.devices) != [a.device for a in plan.assignments]:
        raise InputError(f"{path / MANIFEST}: devices must be those of {PLAN}, got {list(manifest.devices)}.")


def planned_shape(card: ModelCard, profile: Profile, sub_model: SubModel) -> Shape:
    """Return the shape of a planned sub-model's network."""
    return replace(
        whole_shape(card),
        embed_dim=sub_model.embed_dim,
        num_heads=tuple(len(block) for block in sub_model.kept_heads),
        hidden_dim=tuple(len(block) for block in kept_channels(profile, sub_model)),
    )
