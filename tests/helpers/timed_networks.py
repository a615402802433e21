"""Timings with a known truth: networks of a design, and times by a formula written out here."""

from typing import Any

import numpy as np

from planner.library import load_profile
from planner.network.vit import Shape
from planner.network.widths import embed_widths
from planner.profiler.device.latency_fit import TimedNetwork
from planner.profiler.device.probe_design import design_probes
from planner.schema import ProbeManifest, ProbeResult, Profile, sha256_of
from tests.helpers.common import Json

DIGITS = Shape(8, 2, 1, 10, embed_dim=64, head_dim=16, num_heads=(4,) * 4, hidden_dim=(256,) * 4)
WIDTHS = embed_widths(DIGITS)
# Seen on a processor: fixed, attention, head, mlp, channel [us], without embed dims and for each 64 of them.
CONSTANT = (10.0, 10.0, 2.5, 3.5, 0.02)
SLOPE = (0.5, 3.0, 1.0, 1.0, 0.04)


def coefficients(embed_dim: int) -> tuple[float, ...]:
    """Return the true coefficients [us] at a width."""
    return tuple(u + v * embed_dim / 64 for u, v in zip(CONSTANT, SLOPE, strict=True))


def time_us(embed_dim: int, num_heads: tuple[int, ...], hidden_dim: tuple[int, ...]) -> float:
    """Return the true time [us] of a network, block by block."""
    fixed, attention, head, mlp, channel = coefficients(embed_dim)
    total = fixed
    for h, c in zip(num_heads, hidden_dim, strict=True):
        if h > 0:
            total += attention + head * h
        if c > 0:
            total += mlp + channel * c
    return total


def timed_design(noise: float = 0.0, seed: int = 0) -> list[TimedNetwork]:
    """Return the probes of the digits model with their true times, with relative noise."""
    rng = np.random.default_rng(seed)
    return [
        TimedNetwork(
            s.embed_dim,
            s.num_heads,
            s.hidden_dim,
            time_us(s.embed_dim, s.num_heads, s.hidden_dim) * float(np.exp(noise * rng.standard_normal())),
        )
        for s in design_probes(DIGITS, WIDTHS, 0)
    ]


def digits_profile() -> Profile:
    """Return the shipped profile."""
    return load_profile("digits-vit")


def manifest_data() -> Json:
    """Return the manifest of the digits model's probes."""
    networks = [
        {
            "name": f"n{i:02}",
            "embed_dim": t.embed_dim,
            "num_heads": list(t.num_heads),
            "hidden_dim": list(t.hidden_dim),
            "files": {p: {"name": f"n{i:02}-{p}.onnx", "num_bytes": 1000} for p in ("float32", "int8")},
        }
        for i, t in enumerate(timed_design(), start=1)
    ]
    return {
        "model": "digits-vit",
        "num_tokens": 17,
        "depth": 4,
        "num_heads": 4,
        "head_dim": 16,
        "hidden_dim": 256,
        "widths": list(WIDTHS),
        "input_shape": [1, 8, 8],
        "networks": networks,
    }


def result_data(noise: float = 0.01) -> Json:
    """Return a latency.json: true times on 1 thread, 60 % of them on 4; int8 takes 70 % of float32."""
    manifest = manifest_data()
    factors: dict[Any, float] = {"float32": 1.0, "int8": 0.7, 1: 1.0, 4: 0.6}
    timings = []
    for threads in (1, 4):
        for precision in ("float32", "int8"):
            for network, timed in zip(manifest["networks"], timed_design(noise, seed=threads), strict=True):
                us = timed.time_us * factors[precision] * factors[threads]
                timings.append(
                    {
                        "network": network["name"],
                        "precision": precision,
                        "threads": threads,
                        "median_us": us,
                        "spread": 0.01,
                        "runs": 30,
                        "rounds_us": [us, us, us],
                    }
                )
    return {
        "schema_version": 1,
        "manifest_sha256": sha256_of(ProbeManifest.model_validate(manifest)),
        "device": {
            "python": "3.9.2",
            "numpy": "1.26.4",
            "onnxruntime": "1.19.2",
            "platform": "Linux-6.6",
            "machine": "aarch64",
            "cpu": "Raspberry Pi 5 Model B",
            "cores": 4,
        },
        "complete": True,
        "peak_memory_bytes": 100_000_000,
        "manifest": manifest,
        "timings": timings,
        "failures": [],
    }


def c_result_data(noise: float = 0.002) -> Json:
    """Return a latency.json of the C engine: the same times, on its one thread."""
    data = result_data(noise)
    data["manifest"]["engine"] = "c"
    data["manifest_sha256"] = sha256_of(ProbeManifest.model_validate(data["manifest"]))
    data["timings"] = [t for t in data["timings"] if t["threads"] == 1]
    software = ("python", "numpy", "onnxruntime")
    device = {key: value for key, value in data["device"].items() if key not in software}
    data["device"] = {**device, "compiler": "GCC 12.2.0"}
    return data


def result(**changes: Any) -> ProbeResult:
    """Return the latency.json with some keys replaced."""
    return ProbeResult.model_validate(result_data() | changes)
