"""Configuration of a run (recipe, budget, teacher, data), and runs that cannot be finished."""

import errno
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from planner.errors import InputError, PlannerError
from planner.executor.bundle import read_bundle
from planner.executor.evaluate import evaluate_bundle
from planner.executor.execute import find_recipe
from planner.network import data
from planner.network.checkpoint import load_model
from planner.network.data.pixels import ArrayPixels
from planner.network.losses import FusionLoss
from planner.network.recipes import RECIPES, RECIPES_WITH_TEACHERS
from planner.schema import Goal, ModelCard, NpzFiles, StoredPart, read_document, write_document
from planner.solver import solve
from tests.helpers.small_run import SmallRun, boards, contents, execute_run, make_small_run, small_card, stop


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """Three small sub-models."""
    return make_small_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def unbroken(run: SmallRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of an undisturbed run."""
    return execute_run(run, tmp_path_factory.mktemp("unbroken") / "bundle")


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_gives_the_same_bundle_every_time(run: SmallRun, recipe: str, tmp_path: Path) -> None:
    """Seed and recipe determine the bundle bit for bit, and the manifest states both."""
    one, two, other = (
        execute_run(run, tmp_path / name, recipe=recipe, seed=seed)
        for name, seed in (("one", 0), ("two", 0), ("other", 1))
    )
    assert contents(one) == contents(two)
    assert contents(one)["fusion.safetensors"] != contents(other)["fusion.safetensors"]
    made = json.loads((one / "manifest.json").read_text())
    assert {key: made[key] for key in ("recipe", "epochs", "seed", "teacher_sha256")} == {
        "recipe": recipe,
        "epochs": 3,
        "seed": 0,
        "teacher_sha256": run.profile.weights_sha256,
    }


@pytest.mark.parametrize("recipe", RECIPES_WITH_TEACHERS)
def test_teachers_of_class_subsets_are_kept_and_said(run: SmallRun, recipe: str, tmp_path: Path) -> None:
    """Stopped while it trains them, a run goes on with those that are there; their time is told before."""
    seconds: list[float] = []
    options: dict[str, Any] = {"recipe": recipe, "teacher": "subset", "on_teachers": seconds.append}
    whole = execute_run(run, tmp_path / "whole", **options)
    made = json.loads((whole / "manifest.json").read_text())
    assert (made["subset_teachers"], made["teacher_sha256"]) == (True, run.profile.weights_sha256)
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    names = list(dict.fromkeys(line["training"] for line in lines))
    assert names[:6] == ["teacher of a", "teacher of b", "teacher of c", "a", "b", "c"]
    assert seconds[0] > 0

    def stop_at(name: str) -> Callable[[str, float, float], None]:
        def on_progress(what: str, done: float, total: float) -> None:
            if what == name:
                raise InterruptedError

        return on_progress

    broken = tmp_path / "broken"
    with pytest.raises(InterruptedError):
        execute_run(run, broken, **options, on_progress=stop_at("teacher of b"))
    kept = sorted(broken.rglob("*teacher_of_*.safetensors"))
    assert kept
    times = [path.stat().st_mtime_ns for path in kept[:1]]
    with pytest.raises(InputError, match="subset teachers True"):
        execute_run(run, broken, recipe=recipe)
    with pytest.raises(InterruptedError):
        execute_run(run, broken, **options, on_progress=stop_at("a"))
    assert [path.stat().st_mtime_ns for path in kept[:1]] == times
    assert contents(execute_run(run, broken, **options)) == contents(whole)


@pytest.mark.parametrize(("recipe", "epochs"), [("ed-vit", 2), ("default", 0), ("devit", 0)])
def test_teachers_from_whom_nobody_learns_are_refused(run: SmallRun, recipe: str, epochs: int, tmp_path: Path) -> None:
    """By a recipe that learns from labels alone, or without retraining."""
    with pytest.raises(InputError) as caught:
        execute_run(run, tmp_path / "out", recipe=recipe, epochs=epochs, teacher="subset")
    assert str(caught.value) == (
        f"`teacher=subset`: sub-models must learn from teachers, got `recipe` {recipe} and {epochs} epochs of "
        "retraining; take default or devit, and some `epochs`."
    )
    assert not (tmp_path / "out").exists()


def test_an_unknown_recipe_names_the_nearest() -> None:
    """A misspelled recipe is refused with the nearest name."""
    with pytest.raises(InputError, match=r"one of default, ed-vit, devit, got 'edvit'; did you mean 'ed-vit'\?"):
        find_recipe("edvit")


def test_another_recipe_in_the_same_folder_is_refused(run: SmallRun, unbroken: Path, tmp_path: Path) -> None:
    """The message names what differs, for a finished bundle and for an unfinished one."""
    with pytest.raises(InputError, match=r"was begun with recipe 'default' \(now 'devit'\); delete it"):
        execute_run(run, unbroken, recipe="devit")
    with pytest.raises(RuntimeError, match="stopped"):
        execute_run(run, tmp_path, on_progress=stop)
    with pytest.raises(InputError, match=r"was begun with epochs 3 \(now 2\), seed 0 \(now 5\)"):
        execute_run(run, tmp_path, epochs=2, seed=5)


def test_metrics_have_a_line_for_each_epoch(unbroken: Path) -> None:
    """Metrics list the start and epochs of each sub-model, then of the fusion, then of all together."""
    lines = [json.loads(line) for line in (unbroken / "metrics.jsonl").read_text().splitlines()]
    found = [(line["training"], line["epoch"], line["epochs"]) for line in lines]
    num_fusion = sum(name == "fusion" for name, _, _ in found)
    assert found == [
        *((name, epoch, 2) for name in "abc" for epoch in range(3)),
        *(("fusion", epoch, 20) for epoch in range(num_fusion)),
        ("together", 0, 1),
        ("together", 1, 1),
    ]
    for line in lines:
        assert (line["loss"] is None) == (line["epoch"] == 0)
        # All begin with something in closed form; of what is trained together it is the match of the features alone.
        assert (line["accuracy_as_cut"] is not None) == (line["epoch"] == 0)
        assert line["held_loss"] > 0
        assert 0 <= line["held_accuracy"] <= 1
        assert line["seconds"] > 0


def test_the_test_part_is_read_once_and_not_by_execute(
    run: SmallRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Executing reads the training part alone; evaluating reads the test part, once."""
    opened: list[str] = []
    read = data.sources.read

    def counted(card: ModelCard, part: StoredPart) -> data.sources.StoredImages:
        opened.append(part)
        return read(card, part)

    monkeypatch.setattr(data.sources, "read", counted)
    execute_run(run, tmp_path / "bundle")
    assert opened == ["train"]
    opened.clear()
    evaluate_bundle(read_bundle(tmp_path / "bundle"))
    assert opened == ["test"]


def test_evaluate_decodes_no_image_that_calibrates_predictions(unbroken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 50 test images, 25 are decoded and measured, those of the test part; with a validation part, all 50 are."""
    bundle = read_bundle(unbroken)
    decoded: set[int] = set()
    read = ArrayPixels.read

    def counted(self: ArrayPixels, indices: Sequence[int]) -> Iterator[tuple[Path | str, torch.Tensor]]:
        decoded.update(indices)
        return read(self, indices)

    monkeypatch.setattr(ArrayPixels, "read", counted)
    evaluation = evaluate_bundle(bundle)
    assert (evaluation.num_images, evaluation.num_calibration_images) == (25, 25)
    measured = decoded.copy()
    decoded.clear()
    data.load(bundle.card, "calibration").tensor()
    assert measured | decoded == set(range(50))
    assert not measured & decoded

    assert isinstance(bundle.card.data, NpzFiles)
    # No such file: it is not read.
    source = bundle.card.data.replace(validation="validation.npz")
    evaluation = evaluate_bundle(replace(bundle, card=bundle.card.replace(data=source)))
    assert (evaluation.num_images, evaluation.num_calibration_images) == (50, 0)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("per_class", [12, 3])
def test_a_class_with_three_images(tmp_path: Path, recipe: str, per_class: int) -> None:
    """One small class, or only small classes, can be learned from with finite losses."""
    run = make_small_run(tmp_path, per_class=per_class, few=3)
    bundle = read_bundle(execute_run(run, tmp_path / "bundle", recipe=recipe))
    assert all(p.isfinite().all() for model in (*bundle.sub_models, bundle.fusion) for p in model.parameters())


def test_a_loss_that_is_no_number_ends_the_run(
    run: SmallRun, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence names the training and its epoch; without the cause, the same command finishes."""
    loss = FusionLoss.forward
    monkeypatch.setattr(FusionLoss, "forward", lambda *given: loss(*given) * torch.nan)
    with pytest.raises(PlannerError, match=r"training 'fusion': the loss became nan in epoch 0"):
        execute_run(run, tmp_path)
    monkeypatch.undo()
    assert contents(execute_run(run, tmp_path)) == contents(unbroken)


def test_a_full_disk_while_states_are_written(
    run: SmallRun, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time the disk is full there is one sentence, and with space the run ends in the unbroken bundle."""
    real, left = os.fsync, 0

    def fsync(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    for files in (0, 1, 4, 4, 4):
        left = files
        with pytest.raises(InputError, match=r"cannot be written \(No space left on device\): needs [\d,]+ bytes\.$"):
            execute_run(run, tmp_path)
    monkeypatch.undo()
    assert contents(execute_run(run, tmp_path)) == contents(unbroken)


def test_a_disk_that_is_really_full(run: SmallRun, unbroken: Path) -> None:
    """On a full file system of a few hundred kilobytes the run is refused; on a larger one it finishes."""
    with tempfile.TemporaryDirectory() as folder:
        mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", folder], capture_output=True)
        if mount.returncode:
            pytest.skip(f"no tmpfs can be mounted here: {mount.stderr.decode().strip()}")
        try:
            with pytest.raises(InputError, match=r"cannot be written \(No space left on device\)"):
                execute_run(run, Path(folder) / "bundle")
            subprocess.run(["mount", "-o", "remount,size=20m", folder], check=True)
            assert contents(execute_run(run, Path(folder) / "bundle")) == contents(unbroken)
        finally:
            subprocess.run(["umount", folder], check=True)


def test_damaged_distillation_data_is_refused(run: SmallRun, tmp_path: Path) -> None:
    """A work file that was cut short is named, with a remedy."""
    with pytest.raises(RuntimeError, match="stopped"):
        execute_run(run, tmp_path, on_progress=stop)
    (tmp_path / "work" / "lessons.safetensors").write_bytes(b"x")
    with pytest.raises(
        PlannerError, match=r"lessons\.safetensors: must hold a teacher's logits and features .*delete it"
    ):
        execute_run(run, tmp_path)


def test_a_larger_model_teaches_a_small_one(run: SmallRun, tmp_path: Path) -> None:
    """An unpruned student learns from another model, whose hash is in the manifest."""
    card, whole = load_model(run.card)
    (tmp_path / "teacher").mkdir()
    small_card(tmp_path / "teacher")
    teacher_card = _with_other_weights(tmp_path / "teacher")
    fleet = boards("a")
    roomy = fleet.model_dump() | {"devices": [fleet.devices[0].model_dump() | {"memory_budget": 10**8}]}
    plan = solve(run.profile, type(fleet).model_validate(roomy), Goal(min_retention=1.0))
    everything = replace(run, plan=plan)
    own = execute_run(everything, tmp_path / "own")
    taught = execute_run(everything, tmp_path / "taught", teacher=str(tmp_path / "teacher" / "card.json"))
    bundle = read_bundle(taught)
    assert bundle.sub_models[0].shape == whole.shape
    assert bundle.manifest.teacher_sha256 == teacher_card.weights_sha256 != card.weights_sha256
    assert contents(own)["devices/00-a.safetensors"] != contents(taught)["devices/00-a.safetensors"]


def _with_other_weights(folder: Path) -> ModelCard:
    """Shift the head's bias, so that the teacher's logits differ."""
    import hashlib

    from safetensors.torch import load_file, save

    tensors = load_file(folder / "weights.safetensors")
    tensors["head.bias"] = tensors["head.bias"] + torch.arange(10.0)
    content = save(tensors)
    (folder / "weights.safetensors").write_bytes(content)
    card = read_document(folder / "card.json", ModelCard).model_dump()
    card["weights_sha256"] = hashlib.sha256(content).hexdigest()
    made = ModelCard.model_validate(card)
    write_document(folder / "card.json", made)
    return made


def test_a_teacher_of_other_classes_is_refused(run: SmallRun, tmp_path: Path) -> None:
    """The message names what must be equal, with both values."""
    small_card(tmp_path)
    card = read_document(tmp_path / "card.json", ModelCard).model_dump()
    for key, value, message in (
        ("classes", [*"abcdefghij"], r"classes must be digits-vit's, 0 1 2 3 4 5 6 7 8 9, got a b c"),
        ("preprocessing", {"scale": 1.0, "mean": [0.0], "std": [1.0]}, r"preprocessing must be digits-vit's.*scale=1"),
    ):
        write_document(tmp_path / "other.json", ModelCard.model_validate(card | {key: value}))
        with pytest.raises(InputError, match=message):
            execute_run(run, tmp_path / "bundle", teacher=str(tmp_path / "other.json"))
