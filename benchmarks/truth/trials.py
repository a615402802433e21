"""Executed plans: predicted beside measured, and what one board alone or a baseline makes of the same latency."""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.accuracy.store import read_json, write_json
from benchmarks.truth.subjects import Subject
from planner.errors import InfeasibleError
from planner.executor.bundle import read_bundle
from planner.executor.evaluate import evaluate_bundle
from planner.executor.execute import execute_plan
from planner.executor.trainers import ParallelTrainer
from planner.rules.accuracy import predict_accuracy
from planner.schema import Fleet, Goal, Method, Plan, Profile
from planner.schema.base import sha256_of_json
from planner.solver import SolveOptions, solve
from planner.workers import ProcessExecutor, usable_cores


@dataclass(frozen=True)
class Result:
    """Predicted and measured loss of a plan against the whole model [share of images]."""

    boards: int
    latency_us: int
    predicted: float
    low: float
    high: float
    measured: float
    whole: float
    epochs: float
    num_images: int


def plan_for(profile: Profile, fleet: Fleet, drop: float, seconds: float) -> Plan | None:
    """Return the planner's plan for an accuracy drop, or None where none is predicted to keep it."""
    try:
        return solve(profile, fleet, Goal(max_accuracy_drop=drop), SolveOptions(time_limit_s=seconds))
    except InfeasibleError:
        return None


def one_board(profile: Profile, fleet: Fleet, plan: Plan, seconds: float) -> Plan | None:
    """Return the most accurate plan of the fleet's fastest board alone, within the latency of another plan."""
    fastest = max(fleet.members, key=lambda member: member.macs_per_second or 0.0)
    others = tuple(member.name for member in fleet.members if member.name != fastest.name)
    goal = Goal(objective="accuracy", max_latency_ms=plan.latency_us / 1000, leave_out=others)
    try:
        return solve(profile, fleet, goal, SolveOptions(time_limit_s=seconds))
    except InfeasibleError:
        return None


def baseline(profile: Profile, fleet: Fleet, plan: Plan, method: Method) -> Plan | None:
    """Return a baseline's plan within the latency of another plan."""
    goal = Goal(method=method, min_retention=0.0, max_latency_ms=plan.latency_us / 1000)
    try:
        return solve(profile, fleet, goal)
    except InfeasibleError:
        return None


def executed(plan: Plan, profile: Profile, subject: Subject, seed: int, cache: Path) -> Result:
    """Execute a plan as long as its prediction is for, and measure it on the test part; finished ones are kept.

    Args:
        plan: A plan for the profile.
        profile: Profile of the model.
        subject: The model.
        seed: Seed of the trainings.
        cache: Folder of finished results, and of bundles while they are made.
    """
    kept = [a.model_dump(mode="json", include={"classes", "embed_dim", "kept_heads", "kept_channel_groups"})
            for a in plan.assignments]  # fmt: skip
    name = sha256_of_json([plan.profile_sha256, kept, seed])[:16]
    file, bundle = cache / f"{name}.json", cache / name
    predicted = predict_accuracy(plan.assignments, profile)
    assert predicted is not None
    if not file.exists():
        trainer = ParallelTrainer(ProcessExecutor(usable_cores()))
        execute_plan(plan, profile, bundle, model=subject.card, epochs=predicted.epochs, seed=seed, trainer=trainer)
        found = evaluate_bundle(read_bundle(bundle))
        measured = {"fused": found.fused_accuracy, "whole": found.whole_accuracy, "num_images": found.num_images}
        write_json(file, measured)
        shutil.rmtree(bundle)
    data = read_json(file)
    assert profile.accuracy_model is not None
    whole = 1 - profile.accuracy_model.whole_error
    return Result(
        boards=len(plan.assignments),
        latency_us=plan.latency_us,
        predicted=predicted.loss,
        low=whole - predicted.high,
        high=whole - predicted.low,
        measured=data["whole"] - data["fused"],
        whole=data["whole"],
        epochs=predicted.epochs,
        num_images=data["num_images"],
    )


def as_json(result: Result | None) -> dict[str, float] | None:
    """Return a result as JSON holds it."""
    return None if result is None else asdict(result)
