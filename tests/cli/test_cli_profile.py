"""`planner profile`: what it says before and after measuring; the measurement itself is the profiler's."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from planner.profiler import build
from planner.profiler.budget import ProfileBudget
from planner.profiler.options import ProfileOptions, Stage
from planner.schema import Profile, read_document
from tests.helpers.commands import PROGRAM
from tests.helpers.pencil import ACCURACY_MODEL, profile


def measured(
    monkeypatch: pytest.MonkeyPatch, folder: Path, *flags: str, found: Profile | None = None, **extent: Any
) -> tuple[Result, ProfileOptions]:
    """Return what the command prints where a measurement of this extent finds a profile, and its options."""
    given: list[ProfileOptions] = []

    def build_profile(model: str, work: Path, options: ProfileOptions, *callbacks: Any) -> Profile:
        on_stage, _, on_budget = callbacks
        given.append(options)
        on_stage(Stage("measure importance", 1, 2))
        if extent:
            on_budget(ProfileBudget(weights="0", max_relative_macs=6, **extent))
        return found or profile(accuracy_model=ACCURACY_MODEL)

    monkeypatch.setattr(build, "build_profile", build_profile)
    monkeypatch.chdir(folder)
    result = CliRunner(env={"COLUMNS": "80"}).invoke(PROGRAM, ["profile", "pencil", "--out", "p.json", *flags])
    assert result.exit_code == 0, result.output
    return result, given[0]


@pytest.mark.parametrize(
    ("flags", "extent", "line"),
    [
        (
            ("--minutes", "20"),
            {"minutes": 20, "images_per_class": 200, "epochs": 10},
            "20 minutes: at most 200 images of each class and 32 trial plans of 10 epochs.",
        ),
        (
            ("--minutes", "120"),
            {"minutes": 120, "images_per_class": 200, "epochs": 0},
            "120 minutes: at most 200 images of each class and 32 trial plans, not retrained.",
        ),
        (
            ("--minutes", "1", "--trial-plans", "0"),
            {"minutes": 1, "images_per_class": 4, "epochs": 10},
            "1 minute: at most 4 images of each class, no trial plans.",
        ),
    ],
)
def test_it_says_first_what_fits_into_the_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: tuple[str, ...], extent: dict[str, Any], line: str
) -> None:
    """One line of at most 80 columns on stderr: images, trial plans, and whether these are retrained."""
    result, _ = measured(monkeypatch, tmp_path, *flags, **extent)
    assert result.stderr.splitlines()[0] == line
    assert len(line) <= 80
    assert result.stdout == "p.json: profile of pencil.\n"


def test_it_says_at_the_end_what_predictions_are_worth(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With trial plans their interval, at nine scores from -0.4 to 0.4; without any, what goals there are."""
    model = ACCURACY_MODEL | {"scores": [-0.4, -0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3, 0.4]}
    result, _ = measured(monkeypatch, tmp_path, found=profile(accuracy_model=model))
    assert result.stderr.splitlines() == [
        "Predictions hold after 10 epochs of retraining; 9 trial plans, unsplit 97.0%.",
        "Of plans predicted to lose 2 points, four in five lose between 1.0 and 3.0.",
    ]
    assert read_document(tmp_path / "p.json", Profile).accuracy_model is not None
    result, _ = measured(monkeypatch, tmp_path, found=profile())
    assert result.stderr == "No trial plan was executed: goals are a min_retention, not an accuracy drop.\n"


@pytest.mark.parametrize(("mape", "warned"), [(0.15, False), (0.151, True), (None, False)])
def test_a_latency_table_that_is_far_off_is_doubted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mape: float | None, warned: bool
) -> None:
    """Above 15 percent on networks that were held out, a warning says by how much and what to do."""
    row = {"embed_dim": 8, "fixed_us": 1, "attention_us": 1, "head_us": 1, "mlp_us": 1, "channel_us": 1, "mape": mape}
    result, _ = measured(monkeypatch, tmp_path, found=profile(latency={"local": [row]}))
    warning = (
        "Warning: kind local: times of networks that were held out are off by 15.1%, more than 15%; measure "
        "again with nothing else running, or plan with a margin."
    )
    assert (warning in result.stderr.splitlines()) == warned


def test_flags_are_the_options_of_the_measurement(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is not given is left to be chosen by the time."""
    _, options = measured(monkeypatch, tmp_path)
    assert options == ProfileOptions()
    assert (options.images_per_class, options.epochs) == (None, None)
    flags = ("--minutes", "5", "--trial-plans", "8", "--epochs", "0", "--images-per-class", "7", "--seed", "3")
    _, options = measured(monkeypatch, tmp_path, *flags, "--jobs", "1", "--importance", "kl")
    assert options == ProfileOptions("kl", 5, 7, 8, 0, seed=3)


@pytest.mark.parametrize(("num_trials", "is_kept"), [(8, True), (9, False)])
def test_work_with_too_few_trial_plans_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, num_trials: int, is_kept: bool
) -> None:
    """Importance and trial plans took long, and more of them may follow; with enough of them the folder goes."""
    work = tmp_path / ".p.json.work"
    work.mkdir()
    found = profile(accuracy_model=ACCURACY_MODEL | {"scores": [0.1] * num_trials})
    result, _ = measured(monkeypatch, tmp_path, found=found)
    said = "Given more --minutes or --trial-plans, the same command goes on from .p.json.work."
    assert (said in result.output) == is_kept
    assert work.exists() == is_kept
