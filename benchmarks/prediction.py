"""Is the predicted fused accuracy true? Plans for several fleets and drops, executed and measured on the test part.

Writes docs/prediction.md. Some ten minutes; a plan that was measured is kept in build/prediction, so that the same
command goes on where it was stopped.
"""

import json
import math
import shutil
from pathlib import Path

import torch
from rich.progress import Progress

from planner.errors import InfeasibleError
from planner.executor.bundle import read_bundle
from planner.executor.evaluate import evaluate
from planner.executor.execute import execute
from planner.library import load_fleet, load_profile
from planner.report.text import kib
from planner.schema import Fleet, Goal, Plan, Profile, write_document
from planner.schema.base import sha256_of_json, write_text
from planner.solver import solve

ROOT = Path(__file__).parent.parent
WORK = ROOT / "build" / "prediction"
PAGE = ROOT / "docs" / "prediction.md"

DROPS = (0.01, 0.02, 0.05, 0.1, 0.2)
# Boards of one kind, and how much of the whole model's 790 KiB each may hold.
BOARDS = {"one board": (1, "480KiB"), "two boards": (2, "320KiB"), "five boards": (5, "200KiB")}


def fleets() -> dict[str, Fleet]:
    """Return the fleets: the demo's, and equal boards."""
    made = {"greenhouse": load_fleet(ROOT / "examples" / "devices.json")}
    for name, (count, budget) in BOARDS.items():
        boards = [
            {"name": f"b{i}", "kind": "esp32-s3", "memory_budget": budget, "runtime_overhead": "48KiB"}
            for i in range(count)
        ]
        link = {"bandwidth_mbps": 8.0, "latency_ms": 1.5}
        made[name] = Fleet.model_validate({"aggregator": "b0", "devices": boards, "default_link": link})
    return made


def measured(plan: Plan, profile: Profile, progress: Progress) -> float:
    """Return the fused accuracy of a plan on the test part, executed once and remembered."""
    # Not of the whole plan, which says how many seconds it took.
    name = sha256_of_json([plan.profile_sha256, [a.model_dump(mode="json") for a in plan.assignments]])[:16]
    known, bundle = WORK / f"{name}.json", WORK / name
    if not known.exists():
        shutil.rmtree(bundle, ignore_errors=True)
        task = progress.add_task("execute", total=None)
        execute(
            plan,
            profile,
            bundle,
            on_progress=lambda what, done, total: progress.update(task, completed=done, total=total),
        )
        progress.remove_task(task)
        write_document(known, evaluate(read_bundle(bundle)))
    return float(json.loads(known.read_text())["fused_accuracy"])


def main() -> None:
    """Run and write the page."""
    torch.set_num_threads(1)
    profile = load_profile("digits-vit")
    rows, off, within = [], [], 0
    with Progress() as progress:
        task = progress.add_task("plans", total=len(fleets()) * len(DROPS))
        for name, fleet in fleets().items():
            for drop in DROPS:
                try:
                    plan = solve(profile, fleet, Goal(max_accuracy_drop=drop), deterministic=True)
                except InfeasibleError:
                    rows.append(f"| {name} | {drop:.0%} | no plan | | | | | |")
                    progress.advance(task)
                    continue
                said = plan.predicted_accuracy
                assert said is not None
                got = measured(plan, profile, progress)
                off.append(got - said.accuracy)
                within += abs(off[-1]) <= said.error
                largest = kib(max(a.memory_bytes for a in plan.assignments))
                widths = "/".join(str(a.embed_dim) for a in plan.assignments)
                rows.append(
                    f"| {name} | {drop:.0%} | {plan.latency_us / 1000:.1f} ms | {widths} | {largest} | "
                    f"{said.accuracy:.1%} ± {100 * said.error:.1f} | {got:.1%} | {100 * off[-1]:+.1f} |"
                )
                progress.advance(task)
    mean = sum(abs(o) for o in off) / len(off)
    rms = math.sqrt(sum(o * o for o in off) / len(off))
    bias = sum(off) / len(off)
    write_text(
        PAGE,
        "# Predicted and measured fused accuracy\n\n"
        "Plans for the digits ViT, executed with the default recipe and measured on the 540 test images (one image is "
        "0.2 points), which the profile has never seen. `make bench-prediction`.\n\n"
        "| fleet | allowed drop | latency | embed dims | most memory | predicted | measured | off by (points) |\n"
        "|---|---|---|---|---|---|---|---|\n" + "\n".join(rows) + "\n\n"
        f"Mean absolute error {100 * mean:.1f} points, root mean square {100 * rms:.1f}, bias {100 * bias:+.1f}; "
        f"{within} of {len(off)} within the stated error.\n",
    )
    print(PAGE.read_text())


if __name__ == "__main__":
    main()
