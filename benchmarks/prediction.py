"""Predicted and measured fused accuracy of plans for several fleets and drops, executed and tested on the test part.

Writes docs/prediction.md. Some ten minutes; measurements are cached in build/prediction, so that the same command
continues where it was stopped.
"""

import json
import math
import shutil
from pathlib import Path

import torch
from rich.progress import Progress

from planner.errors import InfeasibleError
from planner.executor.bundle import read_bundle
from planner.executor.evaluate import evaluate_bundle
from planner.executor.execute import execute_plan
from planner.library import load_fleet, load_profile
from planner.schema import Fleet, Goal, Plan, PredictedAccuracy, Profile, write_document
from planner.schema.base import sha256_of_json, write_text
from planner.solver import SolveOptions, solve
from planner.units import format_bytes

ROOT = Path(__file__).parent.parent
WORK = ROOT / "build" / "prediction"
PAGE = ROOT / "docs" / "prediction.md"

DROPS = (0.01, 0.02, 0.05, 0.1, 0.2)
# Number of equal boards, and the memory budget of each; the whole model has 790 KiB.
BOARDS = {"one board": (1, "480KiB"), "two boards": (2, "320KiB"), "five boards": (5, "200KiB")}


def fleets() -> dict[str, Fleet]:
    """Return the demo's fleet, and fleets of equal boards."""
    by_name = {"greenhouse": load_fleet(ROOT / "examples" / "devices.json")}
    for name, (count, budget) in BOARDS.items():
        boards = [
            {"name": f"b{i}", "kind": "esp32-s3", "memory_budget": budget, "runtime_overhead": "48KiB"}
            for i in range(count)
        ]
        link = {"bandwidth_mbps": 8.0, "latency_ms": 1.5}
        by_name[name] = Fleet.model_validate({"aggregator": "b0", "devices": boards, "default_link": link})
    return by_name


def measured_accuracy(plan: Plan, profile: Profile, progress: Progress) -> float:
    """Return the fused accuracy of a plan on the test part, executed once and cached."""
    # Not a hash of the whole plan, which contains the seconds that solving took.
    name = sha256_of_json([plan.profile_sha256, [a.model_dump(mode="json") for a in plan.assignments]])[:16]
    cached, bundle = WORK / f"{name}.json", WORK / name
    if not cached.exists():
        shutil.rmtree(bundle, ignore_errors=True)
        task = progress.add_task("execute", total=None)
        execute_plan(
            plan,
            profile,
            bundle,
            on_progress=lambda step, done, total: progress.update(task, completed=done, total=total),
        )
        progress.remove_task(task)
        write_document(cached, evaluate_bundle(read_bundle(bundle)))
    return float(json.loads(cached.read_text())["fused_accuracy"])


def main() -> None:
    """Solve, execute and measure all plans, and write the page."""
    torch.set_num_threads(1)
    profile = load_profile("digits-vit")
    rows: list[str] = []
    errors: list[float] = []
    num_within = 0
    with Progress() as progress:
        task = progress.add_task("plans", total=len(fleets()) * len(DROPS))
        for name, fleet in fleets().items():
            for drop in DROPS:
                try:
                    plan = solve(profile, fleet, Goal(max_accuracy_drop=drop), SolveOptions(deterministic=True))
                except InfeasibleError:
                    rows.append(f"| {name} | {drop:.0%} | no plan | | | | | |")
                    progress.advance(task)
                    continue
                predicted = plan.predicted_accuracy
                assert predicted is not None
                measured = measured_accuracy(plan, profile, progress)
                errors.append(measured - predicted.accuracy)
                num_within += abs(errors[-1]) <= predicted.error
                rows.append(_row(name, drop, plan, predicted, measured))
                progress.advance(task)
    write_text(PAGE, _page(rows, errors, num_within))
    print(PAGE.read_text())


def _row(fleet: str, drop: float, plan: Plan, predicted: PredictedAccuracy, measured: float) -> str:
    max_memory = format_bytes(max(a.memory_bytes for a in plan.assignments))
    widths = "/".join(str(a.embed_dim) for a in plan.assignments)
    return (
        f"| {fleet} | {drop:.0%} | {plan.latency_us / 1000:.1f} ms | {widths} | {max_memory} | "
        f"{predicted.accuracy:.1%} ± {100 * predicted.error:.1f} | {measured:.1%} | "
        f"{100 * (measured - predicted.accuracy):+.1f} |"
    )


def _page(rows: list[str], errors: list[float], num_within: int) -> str:
    """Return the page: the table's rows, and the errors in total."""
    mean = sum(abs(e) for e in errors) / len(errors)
    rms = math.sqrt(sum(e * e for e in errors) / len(errors))
    bias = sum(errors) / len(errors)
    return (
        "# Predicted and measured fused accuracy\n\n"
        "Plans for the digits ViT, executed with the default recipe and measured on 270 test images (one image is 0.4 "
        "points), which the profile has never seen. `make bench-prediction`.\n\n"
        "| fleet | allowed drop | latency | embed dims | most memory | predicted | measured | off by (points) |\n"
        "|---|---|---|---|---|---|---|---|\n" + "\n".join(rows) + "\n\n"
        f"Mean absolute error {100 * mean:.1f} points, root mean square {100 * rms:.1f}, bias {100 * bias:+.1f}; "
        f"{num_within} of {len(errors)} within the stated error.\n"
    )


if __name__ == "__main__":
    main()
