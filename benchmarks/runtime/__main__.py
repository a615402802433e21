"""What the runtime adds to a plan's times, and what it survives: docs/runtime-speed.md.

    python -m benchmarks.runtime [--soak-minutes 3] [--parts transport,rehearsals,compute,kills,soak] [--out FILE]

Only a machine that does nothing else gives numbers of worth; the page says how busy it was.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks.runtime import compute, endurance, fan_out, goals
from benchmarks.runtime.progress import OnStep, progress_of
from benchmarks.runtime.random_bundle import FLEET, make_random_bundle
from planner.executor.execute import execute_plan
from planner.library import load_fleet, load_profile
from planner.runtime.rehearsal import RehearsalOptions, rehearse
from planner.runtime.rehearsal.result import machine
from planner.schema import Fleet, Rehearsal, Step
from planner.schema.base import write_text
from planner.solver import solve

ROOT = Path(__file__).parent.parent.parent
_MIB = 2**20
_INTRODUCTION = """# What the runtime adds, and what it survives

{machine}; {cores} cores; load {load:.2f} before the first measurement.

Plans are held: a worker computes and then sleeps until the planned moment, so that what is measured beyond the plan is
the runtime's own. `make bench-runtime` writes this page.
"""


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--soak-minutes", type=float, default=3.0)
    parser.add_argument("--parts", default=",".join(_PARTS))
    parser.add_argument("--count", type=int, default=20, help="random sub-models of each model")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "runtime-speed.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    text = _INTRODUCTION.format(machine=machine({"onnxruntime", "c"}), cores=os.cpu_count(), load=os.getloadavg()[0])
    with tempfile.TemporaryDirectory() as folder:
        for part in options.parts.split(","):
            text += "\n" + _PARTS[part](Path(folder), options, progress_of(part))
            write_text(options.out, text)
            print(f"{part}: done", flush=True)


def _transport(folder: Path, options: argparse.Namespace, on_step: OnStep) -> str:
    rows: list[fan_out.FanOut] = []
    for channels, side in _IMAGES:
        on_step("sizes of images", len(rows), len(_IMAGES))
        rows.append(fan_out.measure(channels, side))
    return (
        "## Four workers on loopback, no model\n\n"
        "| image [bytes] | p10 [ms] | p50 [ms] | p99 [ms] | images a second, eight under way |\n|---|---|---|---|---|\n"
        + "".join(
            f"| {r.image_bytes:,} | {r.p10 / 1000:.2f} | {r.p50 / 1000:.2f} | {r.p99 / 1000:.2f} | "
            f"{r.images_per_second:,.0f} |\n"
            for r in rows
        )
        + goals.fan_out_goal(rows[0])
    )


def _rehearsals(folder: Path, options: argparse.Namespace, on_step: OnStep) -> str:
    on_step("the demo's bundle", 0, 1)
    demo, fleet = _demo(folder)
    run = rehearse(demo, fleet, on_progress=on_step)
    text = f"## Rehearsals\n\n### The demo\n\n{_rehearsal_table(run)}{goals.demo_goal(run)}"
    run = rehearse(demo, fleet, RehearsalOptions(measured_compute=True), on_step)
    text += f"\n### The demo, compute measured\n\n{_rehearsal_table(run)}"
    on_step("a ViT-Tiny's bundle", 0, 1)
    tiny, _ = make_random_bundle(_made(folder / "tiny"))
    run = rehearse(tiny, FLEET, RehearsalOptions(num_images=100), on_step)
    text += "\n### ViT-Tiny on four Raspberry Pi 4B, random weights\n\n"
    return text + _rehearsal_table(run) + goals.tiny_goals(run)


def _rehearsal_table(run: Rehearsal) -> str:
    text = "| device | step | predicted [ms] | p10 | p50 | p99 | over | is |\n|---|---|---|---|---|---|---|---|\n"
    for d in run.devices:
        for name, step in (("send", d.send), ("compute", d.compute), ("return", d.returned), ("latency", d.latency)):
            text += _step_row(d.device, name, step)
    text += _step_row("all", "fusion", run.fusion) + _step_row("all", "answer", run.latency)
    memory = "; ".join(
        f"{d.device} {d.planned_memory_bytes / _MIB:.1f} planned, {(d.peak_bytes or 0) / _MIB:.1f} at the peak"
        for d in run.devices
        if not d.stand_in
    )
    same = f"{run.num_images - run.num_differing:,} of {run.num_images:,} answers are the bundle's."
    return text + "\n" + same + (f" Memory [MiB]: {memory}." if memory else "") + "\n"


def _step_row(device: str, name: str, step: Step) -> str:
    predicted = "" if step.predicted_us is None else f"{step.predicted_us / 1000:.2f}"
    if (m := step.measured_us) is None:
        return f"| {device} | {name} | {predicted} | | | | | |\n"
    over = f"{m.p50 / step.predicted_us - 1:+.0%}" if step.predicted_us else ""
    times = " | ".join(f"{us / 1000:.2f}" for us in (m.p10, m.p50, m.p99))
    return f"| {device} | {name} | {predicted} | {times} | {over} | {'' if name in _SUMS else step.origin} |\n"


def _compute(folder: Path, options: argparse.Namespace, on_step: OnStep) -> str:
    text = (
        "## Predicted compute, kind `local`\n\nRandom sub-models in ONNX Runtime on one thread; the latency table was "
        "measured just before, on others.\n"
    )
    for name in compute.WHOLES:
        found = compute.measure(name, options.count, 11, on_step)
        errors = [abs(c.error) for c in found]
        text += (
            f"\n### {name}\n\n{len(found)} sub-models: error {statistics.mean(errors):.0%} on average, "
            f"{statistics.median(errors):.0%} at the median, {max(errors):.0%} at most.\n\n"
            "| embed dim | heads | channels | predicted [us] | p10 | p50 | error |\n|---|---|---|---|---|---|---|\n"
        )
        for c in found:
            text += (
                f"| {c.shape.embed_dim} | {sum(c.shape.num_heads)} | {sum(c.shape.hidden_dim)} | {c.predicted:,.0f} | "
                f"{c.p10:,.0f} | {c.p50:,.0f} | {c.error:+.0%} |\n"
            )
    return text


def _kills(folder: Path, options: argparse.Namespace, on_step: OnStep) -> str:
    demo, fleet = _demo(folder)
    k = endurance.kill_again_and_again(demo, fleet, on_step)
    return (
        f"## A device killed every hundred images\n\n{k.num_images:,} images, {k.num_kills} kills: {k.num_lost} "
        f"answers lost, {k.num_without:,} without a device; the slowest took {k.worst_us / 1000:.1f} ms, with a "
        f"deadline of {k.deadline_us / 1000:.0f} ms. A device was back {max(k.back_s, default=0):.2f} s after its "
        f"worker listened again at the latest, {statistics.median(k.back_s or [0]):.2f} s at the median "
        f"({len(k.back_s)} returns).\n" + goals.kills_goals(k)
    )


def _soak(folder: Path, options: argparse.Namespace, on_step: OnStep) -> str:
    demo, fleet = _demo(folder)
    s = endurance.soak(demo, fleet, on_step, options.soak_minutes)
    rows = "".join(
        f"| {name} | {s.first_bytes[name] / _MIB:.1f} | {s.last_bytes[name] / _MIB:.1f} |\n" for name in s.last_bytes
    )
    return (
        f"## Soak\n\n{s.num_images:,} images in {s.minutes:g} minutes. Resident memory [MiB] after a tenth of that, "
        f"and at the end:\n\n| process | after a tenth | at the end |\n|---|---|---|\n{rows}{goals.soak_goal(s)}"
    )


def _demo(folder: Path) -> tuple[Path, Fleet]:
    """Return a bundle of the demo that was not retrained, made once, and its fleet."""
    fleet = load_fleet(ROOT / "examples" / "devices.json")
    if not (folder / "demo").exists():
        profile = load_profile("digits-vit")
        execute_plan(solve(profile, fleet), profile, folder / "demo", epochs=0)
    return folder / "demo", fleet


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


_SUMS: Sequence[str] = ("latency", "answer")
# Channels and side.
_IMAGES = ((1, 16), (3, 112), (3, 224))
_PARTS: dict[str, Callable[[Path, argparse.Namespace, OnStep], str]] = {
    "transport": _transport,
    "rehearsals": _rehearsals,
    "compute": _compute,
    "kills": _kills,
    "soak": _soak,
}

if __name__ == "__main__":
    main()
