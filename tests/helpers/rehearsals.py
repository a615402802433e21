"""A rehearsal on paper of the drawn plan: far is held, gateway measured 10 % over its plan."""

from typing import Any

from planner.schema import Rehearsal, sha256_of
from tests.helpers.drawn_plan import drawn_plan


def times(p10: float, p50: float, p99: float) -> dict[str, float]:
    """Return percentiles [us]."""
    return {"p10": p10, "p50": p50, "p99": p99}


def step(predicted_us: int | None, measured: dict[str, float] | None, held: bool = False) -> dict[str, Any]:
    """Return a step, held to all of its prediction or not at all."""
    return {"predicted_us": predicted_us, "measured_us": measured, "held_us": predicted_us if held else 0}


def rehearsal(**changes: Any) -> Rehearsal:
    """Return the rehearsal with some keys replaced."""
    gateway = {
        "device": "gateway",
        "num_replies": 20,
        "send": step(0, times(40, 50, 90)),
        "compute": step(5000, times(5400, 5500, 5900)),
        "returned": step(0, times(40, 50, 90)),
        "latency": step(5000, times(5500, 5600, 6000)),
        "network_us": times(5400, 5500, 5900),
        "planned_memory_bytes": 96 * 2**20,
        "planned_runtime_bytes": 80 * 2**20,
        "peak_bytes": 64 * 2**20,
        "interpreter_bytes": 50 * 2**20,
    }
    far = gateway | {
        "device": "far",
        "stand_in": True,
        "send": step(2000, times(2000, 2010, 2100), True),
        "compute": step(3000, times(3000, 3003, 3050), True),
        "returned": step(1500, times(1500, 1520, 1700), True),
        "latency": step(6500, times(6510, 6530, 6900), True),
        "network_us": times(200, 210, 400),
    }
    data = {
        "fleet": "pencil",
        "bundle_sha256": "0" * 64,
        "plan_sha256": sha256_of(drawn_plan()),
        "machine": "x86_64, Python 3.11.7, ONNX Runtime 1.31.1",
        "links": "held",
        "compute": "planned",
        "num_images": 20,
        "deadline_us": 1_000_000,
        "devices": [gateway, far],
        "fusion": step(500, times(60, 80, 100)),
        "latency": step(7000, times(6600, 6650, 7200), True),
        "accuracy": 0.95,
        "bundle_accuracy": 0.95,
        "exported_accuracy": 0.95,
        "num_evaluated": 20,
        "num_differing": 0,
    }
    return Rehearsal.model_validate(data | changes)
