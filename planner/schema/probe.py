"""manifest.json and latency.json: networks to time on a device, and what was timed there.

Legend: L blocks; a probe is a network at one precision and thread count.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Annotated

from pydantic import Field, model_validator

from planner.schema.base import Document, Frozen
from planner.schema.fleet import Name, Precision


class ProbeFile(Frozen):
    """An ONNX file of the folder, and the bytes of its weights."""

    name: Name
    num_bytes: int = Field(ge=0)


class ProbeNetwork(Frozen):
    """A network to time: heads and hidden channels of each block, both (L,), and its files."""

    name: Name
    embed_dim: int = Field(ge=1)
    num_heads: tuple[int, ...]
    hidden_dim: tuple[int, ...]
    files: dict[Precision, ProbeFile] = Field(min_length=1)


class ProbeManifest(Document):
    """manifest.json: the whole model's sizes, and networks of its sub-models' sizes."""

    model: Name
    num_tokens: int = Field(ge=1)
    depth: int = Field(ge=1)
    num_heads: int = Field(ge=1)
    head_dim: int = Field(ge=1)
    hidden_dim: int = Field(ge=1)
    # The full width first.
    widths: tuple[int, ...] = Field(min_length=1)
    input_shape: tuple[int, int, int]
    networks: tuple[ProbeNetwork, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _parts_agree(self) -> "ProbeManifest":
        _distinct((n.name for n in self.networks), "networks")
        for i, network in enumerate(self.networks):
            where = f"networks[{i}] {network.name!r}"
            if network.embed_dim not in self.widths:
                raise ValueError(f"{where}: embed_dim must be one of {list(self.widths)}, got {network.embed_dim}")
            for key, most in (("num_heads", self.num_heads), ("hidden_dim", self.hidden_dim)):
                counts = getattr(network, key)
                if len(counts) != self.depth or min(counts) < 0 or max(counts) > most:
                    raise ValueError(
                        f"{where}: {key} must be {self.depth} numbers from 0 to {most}, got {list(counts)}"
                    )
        return self


class ProbeDevice(Frozen):
    """What was measured on, and with what."""

    python: str
    numpy: str
    onnxruntime: str
    platform: str
    machine: str
    cpu: str
    cores: int = Field(ge=1)


class _Probe(Frozen):
    network: Name
    precision: Precision
    threads: int = Field(ge=1)


class ProbeTiming(_Probe):
    """A probe's time [us]: the median of its rounds; its spread is a share of it."""

    median_us: float = Field(gt=0)
    spread: float = Field(ge=0)
    runs: int = Field(ge=1)
    rounds_us: tuple[Annotated[float, Field(gt=0)], ...]


class ProbeFailure(_Probe):
    """A probe that the device could not run, and why."""

    reason: str


class ProbeResult(Document):
    """latency.json: what the probe script measured on a device."""

    manifest_sha256: str
    device: ProbeDevice
    complete: bool
    peak_memory_bytes: int = Field(ge=0)
    manifest: ProbeManifest
    timings: tuple[ProbeTiming, ...]
    failures: tuple[ProbeFailure, ...] = ()

    @model_validator(mode="after")
    def _each_probe_once(self) -> "ProbeResult":
        found: tuple[_Probe, ...] = (*self.timings, *self.failures)
        probes = [(p.network, p.precision, p.threads) for p in found]
        _distinct(probes, "timings and failures")
        known = {n.name for n in self.manifest.networks}
        stranger = next((p[0] for p in probes if p[0] not in known), None)
        if stranger is not None:
            raise ValueError(f"timings: network {stranger!r} must be one of the manifest's")
        return self


def _distinct(values: Iterable[object], where: str) -> None:
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise ValueError(f"{where}: entries must differ, got {twice[0]!r} twice")
