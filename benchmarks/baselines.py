"""Accuracy and latency of the demo's plan and of both baselines, all within the latency of the demo's plan.

    python benchmarks/baselines.py [--epochs 20] [--out docs/baselines.md]

The baselines have no floors, only the latency limit that our plan reaches: they prune as little as it allows. Every
plan is executed with the same seeds and epochs. Then each sub-model of our plan is timed on this machine and compared
with the prediction of the profile's `local` table.
"""

import argparse
import platform
import tempfile
import time
from pathlib import Path

import torch

from planner.errors import PlannerError
from planner.executor.bundle import read_bundle
from planner.executor.evaluate import evaluate_bundle
from planner.executor.execute import execute_plan
from planner.library import load_fleet, load_profile
from planner.network.vit import VisionTransformer
from planner.profiler.device import local_latency
from planner.rules import cost
from planner.schema import Device, Fleet, Goal, Plan, Profile
from planner.schema.base import write_text
from planner.solver import SolveOptions, solve

ROOT = Path(__file__).parent.parent


def main() -> None:
    """Execute all plans and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "baselines.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    profile, fleet = load_profile("digits-vit"), load_fleet(ROOT / "examples" / "devices.json")
    ours = solve(profile, fleet, Goal())
    lines = [
        "# The demo's plan and the baselines",
        "",
        f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, one thread; "
        f"{options.epochs} epochs. All plans are held to the latency of the first; the baselines have no floors. "
        "Each is executed once: one of 270 test images is 0.4 points, and differences below a point are within "
        "what a seed does.",
        "",
        "| plan | bottleneck latency [ms] | fused accuracy | worst class | seconds to execute |",
        "|---|---|---|---|---|",
    ]
    limit_ms = ours.latency_us / 1000
    candidates = [("ours", ours)]
    for method in ("random-equal", "greedy"):
        goal = Goal.model_validate({"method": method, "min_retention": 0.0, "max_latency_ms": limit_ms})
        for seed in range(3):
            try:
                candidates.append((f"{method}, seed {seed}", solve(profile, fleet, goal, SolveOptions(seed=seed))))
            except PlannerError as error:
                lines.append(f"| {method}, seed {seed} | none: {error} | | | |")
    with tempfile.TemporaryDirectory() as folder:
        for i, (name, plan) in enumerate(candidates):
            print(f"executing {name}", flush=True)
            lines.append(_row(name, plan, profile, Path(folder) / str(i), options.epochs))
        bundle = read_bundle(Path(folder) / "0")
    whole = evaluate_bundle(bundle).whole_accuracy
    lines += ["", f"Whole model: {whole:.1%}.", "", *_timings(ours, profile, list(bundle.sub_models))]
    write_text(options.out, "\n".join(lines) + "\n")
    print("\n".join(lines))


def _row(name: str, plan: Plan, profile: Profile, out: Path, epochs: int) -> str:
    """Execute a plan and return its row of the table."""
    start = time.monotonic()
    execute_plan(plan, profile, out, epochs=epochs)
    seconds = time.monotonic() - start
    evaluation = evaluate_bundle(read_bundle(out))
    worst = min(evaluation.fused_by_class.values())
    accuracy = f"{evaluation.fused_accuracy:.1%}"
    return f"| {name} | {plan.latency_us / 1000:.1f} | {accuracy} | {worst:.1%} | {seconds:.0f} |"


def _timings(plan: Plan, profile: Profile, sub_models: list[VisionTransformer]) -> list[str]:
    """Time each sub-model on this machine and compare it with the `local` latency table."""
    here = Device(name="here", kind=local_latency.KIND, memory_budget=2**40)
    fleet = Fleet.model_validate({"aggregator": "here", "devices": [here.model_dump()]})
    (device,) = cost.device_costs(profile, fleet)
    table = profile.latency[local_latency.KIND][0]
    engine: local_latency.TimingEngine = "torch" if " torch " in table.source else "onnxruntime"
    times = local_latency.shortest_times_us(sub_models, engine)
    lines = [
        f"Sub-models of our plan on this machine; the table was fitted with a held-out error of {table.mape:.1%}.",
        "",
        "| device | predicted [us] | measured [us] | ratio |",
        "|---|---|---|---|",
    ]
    for a, measured in zip(plan.assignments, times, strict=True):
        at = device.at(a.embed_dim)
        assert at is not None
        predicted = at.time.compute_us(*cost.kept_counts(profile, a.kept_heads, a.kept_channel_groups))
        lines.append(f"| {a.device} | {predicted} | {measured:.0f} | {predicted / measured:.2f} |")
    return lines


if __name__ == "__main__":
    main()
