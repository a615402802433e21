"""Small bundles for boards that run ONNX Runtime, and their deployments."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.executor.execute import execute_plan
from planner.library import load_profile
from planner.schema import Fleet, Goal, Precision
from planner.schema.deployment import BYTES_PER_VALUE, InputDtype
from planner.solver import solve
from tests.helpers.small_run import small_card

NUM_VALUES = 64  # of an image of the shipped digits ViT: one channel of 8 x 8


@dataclass(frozen=True)
class SmallBundle:
    """Bundle of three sub-models that was not retrained, and the fleet it is for."""

    path: Path
    fleet: Fleet


def linux_boards(*precisions: Precision, engine: str = "onnxruntime") -> Fleet:
    """Return boards `a`, `b`, ... of these precisions, each with room for about half of the digits ViT."""
    sizes = {"float32": 450, "float16": 300, "int8": 200}
    devices = [
        {
            "name": "abcdefgh"[i],
            "macs_per_second": 8e7,
            "runtime_overhead": 48 * 1024,
            "memory_budget": sizes[precision] * 1024,
            "precision": precision,
            "engine": engine,
        }
        for i, precision in enumerate(precisions)
    ]
    link = {"bandwidth_mbps": 8.0, "latency_ms": 1.0}
    return Fleet.model_validate({"aggregator": "a", "devices": devices, "default_link": link})


def make_small_bundle(folder: Path, fleet: Fleet, dtype: InputDtype = "uint8") -> SmallBundle:
    """Plan and execute a split of the shipped digits ViT on few images, sent as values of this type."""
    profile = load_profile("digits-vit").replace(input_bytes=NUM_VALUES * BYTES_PER_VALUE[dtype])
    plan = solve(profile, fleet, Goal(min_retention=0.3, apart=(("0", "1", "2"),)))
    execute_plan(plan, profile, folder / "bundle", model=small_card(folder), epochs=0)
    return SmallBundle(folder / "bundle", fleet)


def copied(deployment: Path, to: Path) -> Path:
    """Return a copy of a deployment, to be changed."""
    shutil.copytree(deployment, to)
    return to


def change_json(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
