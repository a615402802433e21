"""Execution of a plan: the bundle is as planned, and changed files are refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from planner.errors import InputError, PlannerError
from planner.executor.bundle import read_bundle
from planner.executor.evaluate import evaluate_bundle, verify_sub_model
from planner.executor.execute import execute_plan, selection
from planner.library import load_profile
from planner.network import data
from planner.network.checkpoint import load_model
from planner.schema import Assignment, Fleet, Goal, Plan, Profile
from planner.solver import solve
from tests.helpers.small_run import boards, contents


@pytest.fixture(scope="module")
def profile() -> Profile:
    """The shipped profile."""
    return load_profile("digits-vit")


@pytest.fixture(scope="module")
def plan(profile: Profile) -> Plan:
    """A plan for three boards that prunes much."""
    return solve(profile, boards("a", "b", "c"), Goal(max_accuracy_drop=0.05))


@pytest.fixture(scope="module")
def bundle(plan: Plan, profile: Profile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of the plan, after a short training without interruption."""
    out = tmp_path_factory.mktemp("unbroken") / "bundle"
    execute_plan(plan, profile, out, epochs=3)
    return out


def test_a_bundle_holds_a_file_for_each_device_and_no_training_states(bundle: Path, plan: Plan) -> None:
    """A bundle has plan, profile, fusion, manifest, metrics and one sub-model for each used device."""
    expected = {"plan.json", "profile.json", "fusion.safetensors", "manifest.json", "metrics.jsonl"}
    expected |= {f"devices/{i:02d}-{a.device}.safetensors" for i, a in enumerate(plan.assignments)}
    assert {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()} == expected


def test_evaluation_is_of_half_of_the_test_part(bundle: Path, plan: Plan) -> None:
    """Accuracy is measured overall, for each class and with each device missing, and is far above chance."""
    evaluation = evaluate_bundle(read_bundle(bundle))
    assert (evaluation.num_images, evaluation.num_calibration_images) == (270, 270)
    assert set(evaluation.without_device) == {a.device for a in plan.assignments}
    assert evaluation.whole_accuracy >= 0.97
    assert evaluation.fused_accuracy > 0.8
    labels = data.load(load_model("digits-vit")[0], "test").labels
    by_class = torch.tensor(list(evaluation.fused_by_class.values()))
    weighted = (by_class * torch.bincount(labels)).sum() / len(labels)
    assert float(weighted) == pytest.approx(evaluation.fused_accuracy, abs=1e-6)
    for device, accuracy in evaluation.without_device.items():
        by_class = torch.tensor(list(evaluation.without_device_by_class[device].values()))
        assert float((by_class * torch.bincount(labels)).sum() / len(labels)) == pytest.approx(accuracy, abs=1e-6)


def test_any_one_device_may_be_lost(profile: Profile, tmp_path: Path) -> None:
    """With every class on two devices, no class falls below half of its accuracy when one is missing."""
    plan = solve(profile, boards("a", "b", "c"), Goal(min_retention=0.3, survive=1))
    # Four epochs are not enough: one class of ten keeps 46 percent.
    execute_plan(plan, profile, tmp_path, epochs=6)
    evaluation = evaluate_bundle(read_bundle(tmp_path))
    assert evaluation.fused_accuracy > 0.8
    for by_class in evaluation.without_device_by_class.values():
        assert set(by_class) == set(profile.classes)
        for name, accuracy in by_class.items():
            assert accuracy >= 0.5 * evaluation.fused_by_class[name]


def test_parameters_are_as_planned(bundle: Path, plan: Plan, profile: Profile) -> None:
    """The files have as many parameters as the profile says, emptied halves accounted for."""
    for i, a in enumerate(plan.assignments):
        tensors = load_file(bundle / f"devices/{i:02d}-{a.device}.safetensors")
        lost = sum(not block for block in (*a.kept_heads, *a.kept_channel_groups))
        realised = sum(t.numel() for t in tensors.values()) + 3 * a.embed_dim * lost
        width = profile.width(a.embed_dim)
        assert width is not None
        planned = width.fixed_params
        for l in range(profile.depth):
            planned += width.head_params[l] * len(a.kept_heads[l])
            planned += width.channel_params[l] * sum(profile.group_sizes[l][g] for g in a.kept_channel_groups[l])
        assert realised == planned


def test_another_sub_model_than_planned_is_an_error(bundle: Path, plan: Plan, profile: Profile) -> None:
    """A plan that states one head fewer than the network has is an error."""
    read = read_bundle(bundle)
    a = plan.assignments[0]
    heads = [list(block) for block in a.kept_heads]
    next(block for block in heads if block).pop()
    other = Assignment.model_validate(a.model_dump() | {"kept_heads": heads})
    with pytest.raises(PlannerError, match="must be as planned"):
        verify_sub_model(other, profile, read.sub_models[0])


def test_an_unpruned_sub_model_equals_the_whole_model(profile: Profile) -> None:
    """With a floor of 1, a single large device gets the whole model, with the same logits bit for bit."""
    fleet = Fleet.model_validate(
        {"aggregator": "a", "devices": [{"name": "a", "macs_per_second": 1e9, "memory_budget": "200MiB"}]}
    )
    plan = solve(profile, fleet, Goal(min_retention=1.0))
    card, whole = load_model("digits-vit")
    images = data.load(card, "test").tensor()
    with torch.inference_mode():
        assert torch.equal(selection(profile, plan.assignments[0]).cut(whole)(images), whole(images))


def test_a_finished_bundle_is_left_alone(plan: Plan, profile: Profile, bundle: Path) -> None:
    """Executing again changes nothing; another seed is refused."""
    before = {p: p.stat().st_mtime_ns for p in bundle.rglob("*")}
    execute_plan(plan, profile, bundle, epochs=3)
    assert {p: p.stat().st_mtime_ns for p in bundle.rglob("*")} == before
    with pytest.raises(InputError, match=r"was begun with seed 0 \(now 1\)"):
        execute_plan(plan, profile, bundle, epochs=3, seed=1)


def test_a_folder_with_other_files_is_refused(plan: Plan, profile: Profile, tmp_path: Path) -> None:
    """Nothing is written into a folder with foreign files."""
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="must be empty or a bundle that was begun"):
        execute_plan(plan, profile, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_that_cannot_be_made_is_said_before_any_image_is_read(
    plan: Plan, profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a file there is no place for a bundle."""
    (tmp_path / "file").write_text("")
    monkeypatch.delattr(data, "load")
    with pytest.raises(InputError, match=r"/file/bundle/manifest\.json: cannot be written \(Not a directory\)\."):
        execute_plan(plan, profile, tmp_path / "file" / "bundle")


@pytest.mark.parametrize("file", ["plan.json", "profile.json", "fusion.safetensors", "devices/00-a.safetensors"])
def test_a_changed_file_is_refused(bundle: Path, tmp_path: Path, file: str) -> None:
    """One more byte in any file makes the bundle invalid."""
    copy = tmp_path / "bundle"
    for name, content in contents(bundle).items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(content + (b"\n" if name == file else b""))
    with pytest.raises(InputError, match=r"the file was changed"):
        read_bundle(copy)


def test_a_truncated_or_foreign_sub_model_is_refused(bundle: Path, tmp_path: Path) -> None:
    """A file that is not the planned network is refused in one sentence, even with a matching hash."""
    import hashlib

    for case, expected in (("truncated", "must be a safetensors file"), ("foreign", "is missing")):
        copy = tmp_path / case
        for name, content in contents(bundle).items():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes(content)
        target = copy / "devices/00-a.safetensors"
        if case == "truncated":
            target.write_bytes(target.read_bytes()[:100])
        else:
            save_file({"x": torch.zeros(1)}, target)
        manifest = json.loads((copy / "manifest.json").read_text())
        manifest["sha256"]["devices/00-a.safetensors"] = hashlib.sha256(target.read_bytes()).hexdigest()
        (copy / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(InputError, match=expected):
            read_bundle(copy)


def test_a_manifest_cannot_reach_outside(bundle: Path, tmp_path: Path) -> None:
    """A file name that leads out of the bundle is refused before the file is read."""
    copy = tmp_path / "bundle"
    for name, content in contents(bundle).items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(content)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["sha256"]["../secret"] = "0" * 64
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="must lie in the bundle"):
        read_bundle(copy)


def test_a_manifest_must_name_every_file(bundle: Path, tmp_path: Path) -> None:
    """A file without a hash in the manifest is not trusted."""
    for file in ("plan.json", "fusion.safetensors"):
        copy = tmp_path / file
        for name, content in contents(bundle).items():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes(content)
        manifest = json.loads((copy / "manifest.json").read_text())
        del manifest["sha256"][file]
        (copy / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(InputError, match=f"sha256 must name {file}"):
            read_bundle(copy)
