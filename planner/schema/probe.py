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
    """Its name in the folder."""
    num_bytes: int = Field(ge=0)
    """Of its weights [bytes]."""


class ProbeNetwork(Frozen):
    """A network to time: heads and hidden channels of each block, both (L,), and its files."""

    name: Name
    """What timings call it."""
    embed_dim: int = Field(ge=1)
    """Its width: one of the manifest's."""
    num_heads: tuple[int, ...]
    """Heads of each block (L,)."""
    hidden_dim: tuple[int, ...]
    """Hidden channels of each block (L,)."""
    files: dict[Precision, ProbeFile] = Field(min_length=1)
    """Its ONNX file at each precision."""


class ProbeManifest(Document):
    """manifest.json: the whole model's sizes, and networks of its sub-models' sizes."""

    model: Name
    """Whose sub-models the networks are like."""
    num_tokens: int = Field(ge=1)
    """The whole model's."""
    depth: int = Field(ge=1)
    """The whole model's blocks, L."""
    num_heads: int = Field(ge=1)
    """Heads of a block of the whole model."""
    head_dim: int = Field(ge=1)
    """Width of a head."""
    hidden_dim: int = Field(ge=1)
    """Hidden channels of a block of the whole model."""
    widths: tuple[int, ...] = Field(min_length=1)
    """Embed dims, the full one first."""
    input_shape: tuple[int, int, int]
    """Channels, height and width of the image."""
    networks: tuple[ProbeNetwork, ...] = Field(min_length=1)
    """What is to be timed."""

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
    """Its version."""
    numpy: str
    """Its version."""
    onnxruntime: str
    """Its version."""
    platform: str
    """Operating system."""
    machine: str
    """Instruction set."""
    cpu: str
    """Processor."""
    cores: int = Field(ge=1)
    """How many there are."""


class _Probe(Frozen):
    network: Name
    """One of the manifest's."""
    precision: Precision
    """Of its weights."""
    threads: int = Field(ge=1)
    """How many it ran on."""


class ProbeTiming(_Probe):
    """A probe's time [us]: the median of its rounds; its spread is a share of it."""

    median_us: float = Field(gt=0)
    """Median of the rounds [us]."""
    spread: float = Field(ge=0)
    """How far the rounds lie apart, as a share of it."""
    runs: int = Field(ge=1)
    """Inferences in all rounds."""
    rounds_us: tuple[Annotated[float, Field(gt=0)], ...]
    """Time of one inference in each round [us]."""


class ProbeFailure(_Probe):
    """A probe that the device could not run, and why."""

    reason: str
    """What the runtime said."""


class ProbeResult(Document):
    """latency.json: what the probe script measured on a device."""

    manifest_sha256: str
    """Of the manifest file that was on the device."""
    device: ProbeDevice
    """What was measured on."""
    complete: bool
    """Whether all networks were timed."""
    peak_memory_bytes: int = Field(ge=0)
    """Of the whole process [bytes]."""
    manifest: ProbeManifest
    """What was timed."""
    timings: tuple[ProbeTiming, ...]
    """What was measured."""
    failures: tuple[ProbeFailure, ...] = ()
    """What could not be run."""

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
