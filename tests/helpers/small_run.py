"""A run that takes a second: the shipped digits ViT, few images of it, three boards."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from planner.executor.bundle import METRICS
from planner.executor.epoch_tasks import Trainer
from planner.executor.execute import execute_plan
from planner.library import folder, load_profile
from planner.schema import Device, Fleet, Goal, ModelCard, Plan, Profile, read_document, write_document
from planner.solver import solve


@dataclass(frozen=True)
class SmallRun:
    """Arguments of `execute_plan`."""

    plan: Plan
    profile: Profile
    card: str  # path of a model's card


def boards(*names: str) -> Fleet:
    """Return equal boards that hold about half of the digits ViT."""
    devices = [Device(name=name, kind="esp32-s3", memory_budget=450 * 1024) for name in names]
    link = {"bandwidth_mbps": 8.0, "latency_ms": 1.0}
    fields = {"aggregator": names[0], "devices": [d.model_dump() for d in devices], "default_link": link}
    return Fleet.model_validate(fields)


def small_card(folder_: Path, per_class: int = 12, few: int | None = None) -> str:
    """Write a card of the shipped ViT with few training images a class, perhaps fewer of class 0, and 5 test images."""
    digits = load_digits()
    parts: dict[str, list[int]] = {"train": [], "test": []}
    for c in range(10):
        mine = np.flatnonzero(digits.target == c).tolist()
        parts["test"] += mine[:5]
        parts["train"] += mine[5 : 5 + (few if few is not None and c == 0 else per_class)]
    for name, chosen in parts.items():
        images = digits.images[chosen].astype(np.uint8)
        np.savez(folder_ / f"{name}.npz", images=images, labels=digits.target[chosen])
    shipped = folder("models") / "digits-vit"
    card = read_document(shipped / "card.json", ModelCard).model_dump()
    card |= {"data": {"source": "npz", "train": "train.npz", "test": "test.npz"}}
    (folder_ / "weights.safetensors").write_bytes((shipped / "weights.safetensors").read_bytes())
    write_document(folder_ / "card.json", ModelCard.model_validate(card))
    return str(folder_ / "card.json")


def make_small_run(folder_: Path, **card: int) -> SmallRun:
    """Return a run of three sub-models."""
    profile = load_profile("digits-vit")
    plan = solve(profile, boards("a", "b", "c"), Goal(min_retention=0.3, apart=(("0", "1", "2"),)))
    return SmallRun(plan, profile, small_card(folder_, **card))


def contents(bundle: Path) -> dict[str, bytes]:
    """Return every file of a bundle except the metrics, which hold seconds."""
    files = (path for path in sorted(bundle.rglob("*")) if path.is_file() and path.name != METRICS)
    return {str(path.relative_to(bundle)): path.read_bytes() for path in files}


def execute_run(run: SmallRun, out: Path, **options: Any) -> Path:
    """Execute a run with a small budget, and return its bundle."""
    if "minutes" not in options:
        options.setdefault("epochs", 3)
    execute_plan(run.plan, run.profile, out, model=run.card, **options)
    return out


def execute_watched(
    run: SmallRun, out: Path, trainer: Trainer | None = None, on_epoch: Callable[[int], object] = id
) -> None:
    """Execute a run of four epochs; `on_epoch` is called with the number of epochs so far."""
    seen = -1

    def on_progress(what: str, done: float, total: float) -> None:
        nonlocal seen
        if what != "distillation data" or seen < 0:
            seen += 1
            on_epoch(seen)

    execute_plan(run.plan, run.profile, out, model=run.card, epochs=4, trainer=trainer, on_progress=on_progress)


def metrics_without_seconds(bundle: Path) -> list[str]:
    """Return the lines of a bundle's metrics without their seconds."""
    lines = (bundle / "metrics.jsonl").read_text().splitlines()
    return [line[: line.index('"seconds"')] + line[line.index('"best"') :] for line in lines]


def stop(what: str, done: float, total: float) -> None:
    """Stop a run at its first progress report."""
    raise RuntimeError("stopped")
