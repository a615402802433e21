"""An order that is carried out in a second: the shipped digits ViT, few images of it, three boards."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from planner.executor.bundle import METRICS
from planner.executor.execute import execute
from planner.library import folder, load_profile
from planner.schema import Device, Fleet, Goal, ModelCard, Plan, Profile, read_document, write_document
from planner.solver import solve


@dataclass(frozen=True)
class Ordered:
    """What `execute` is given."""

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
    """Write a card of the shipped ViT with so many training images a class, of class 0 perhaps fewer, and 5 to test."""
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


def small_order(folder_: Path, **card: int) -> Ordered:
    """Return an order of three sub-models."""
    profile = load_profile("digits-vit")
    plan = solve(profile, boards("a", "b", "c"), Goal(min_retention=0.3, apart=(("0", "1", "2"),)))
    return Ordered(plan, profile, small_card(folder_, **card))


def contents(bundle: Path) -> dict[str, bytes]:
    """Return every file of a bundle, but not the metrics, which hold seconds."""
    files = (path for path in sorted(bundle.rglob("*")) if path.is_file() and path.name != METRICS)
    return {str(path.relative_to(bundle)): path.read_bytes() for path in files}


def carry_out(order: Ordered, out: Path, **options: object) -> Path:
    """Execute the order with a small budget, and return its bundle."""
    if "minutes" not in options:
        options.setdefault("epochs", 2)
    execute(order.plan, order.profile, out, model=order.card, **options)
    return out


def stop(what: str, done: float, total: float) -> None:
    """Stop a run as soon as it says something."""
    raise RuntimeError("stopped")
