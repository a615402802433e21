"""Profiles of the models, made the documented way; finished ones are kept in build/truth."""

from rich.progress import Progress

from benchmarks.data_sets import ROOT
from benchmarks.truth.subjects import Subject
from planner.library import load_profile
from planner.profiler.build import build_profile
from planner.profiler.options import ProfileOptions, Stage
from planner.schema import Profile, write_document
from planner.workers import make_executor

WORK = ROOT / "build" / "truth"


def profile_of(subject: Subject, progress: Progress) -> Profile:
    """Return a subject's profile: shipped, finished before, or made now."""
    file = WORK / f"{subject.name}-profile.json"
    if not subject.card.endswith(".json"):
        return load_profile(subject.card)
    if not file.exists():
        task = progress.add_task(f"{subject.name}: profile")

        def on_stage(stage: Stage) -> None:
            progress.update(task, description=stage.name, completed=stage.done, total=stage.total)

        options = ProfileOptions(minutes=subject.minutes)
        with make_executor() as workers:
            write_document(file, build_profile(subject.card, WORK / f"{subject.name}.work", options, on_stage, workers))
    return load_profile(str(file))
