"""manifest.json and latency.json: probes, that is, networks to time on a device, and their measured times.

Legend: L blocks; a timing is of one probe at one precision and thread count.
"""

from collections import Counter
from collections.abc import Iterable

from pydantic import Field, model_validator

from planner.schema.architecture import QkNorm
from planner.schema.base import Document, Frozen
from planner.schema.data import Side
from planner.schema.fleet import Engine, Precision
from planner.schema.quantities import Channels, Depth, Dim, Heads, HiddenDim, Index, NumBytes, Positive, Ratio, Tokens
from planner.schema.text import Name, Text

# Versions that must be known of the device, by engine.
_SOFTWARE: dict[Engine, tuple[str, ...]] = {"onnxruntime": ("python", "numpy", "onnxruntime"), "c": ("compiler",)}


class ProbeFile(Frozen):
    """File of the probe folder that has a network: its own in ONNX, one for all of them in C."""

    name: Name
    """Name of the file in the folder."""
    num_bytes: NumBytes
    """Size of the weights [bytes]."""


class ProbeNetwork(Frozen):
    """Network to time: heads and hidden channels of each block, both (L,), and its files."""

    name: Name
    """Name of the network in the timings."""
    embed_dim: Dim
    """Embed dim of the network: one of the manifest's widths."""
    num_heads: tuple[Index, ...]
    """Heads of each block (L,)."""
    hidden_dim: tuple[Index, ...]
    """Hidden channels of each block (L,)."""
    files: dict[Precision, ProbeFile] = Field(min_length=1)
    """File of the network at each precision."""


class ProbeManifest(Document):
    """manifest.json: the sizes of the whole model, and networks of the sizes of its sub-models."""

    model: Name
    """Name of the model whose sub-models the networks are like."""
    # It is left out where it is the default, so that the hashes of older manifests stay.
    engine: Engine = Field("onnxruntime", exclude_if=lambda engine: engine == "onnxruntime")
    """Engine that the networks are to be timed in."""
    num_tokens: Tokens
    """Tokens of the whole model."""
    num_pooled_tokens: Tokens | None = Field(None, exclude_if=lambda count: count is None)
    """First tokens that are read behind the last block, where the engine computes no others there; null: all."""
    depth: Depth
    """Number of blocks of the whole model, L."""
    num_heads: Heads
    """Heads of a block of the whole model."""
    head_dim: Dim
    """Width of a head."""
    hidden_dim: HiddenDim
    """Hidden channels of a block of the whole model."""
    # Left out where they are as in most ViTs, so that the hashes of other manifests stay.
    gated_mlp: bool = Field(False, exclude_if=lambda is_gated: not is_gated)
    """True if each hidden channel is a pair of a gate and a value."""
    qk_norm: QkNorm | None = Field(None, exclude_if=lambda norm: norm is None)
    """Norm of the queries, and of the keys, of each head; null: none."""
    widths: tuple[Dim, ...] = Field(min_length=1)
    """Embed dims that sub-models may have, the full one first."""
    input_shape: tuple[Channels, Side, Side]
    """Channels, height and width of the image."""
    networks: tuple[ProbeNetwork, ...] = Field(min_length=1)
    """Networks to time."""

    @model_validator(mode="after")
    def _parts_agree(self) -> "ProbeManifest":
        _check_distinct((n.name for n in self.networks), "networks")
        for i, network in enumerate(self.networks):
            where = f"networks[{i}] {network.name!r}"
            if network.embed_dim not in self.widths:
                raise ValueError(f"{where}: embed_dim must be one of {list(self.widths)}, got {network.embed_dim}")
            for key, limit in (("num_heads", self.num_heads), ("hidden_dim", self.hidden_dim)):
                counts = getattr(network, key)
                if len(counts) != self.depth or min(counts) < 0 or max(counts) > limit:
                    raise ValueError(
                        f"{where}: {key} must be {self.depth} numbers from 0 to {limit}, got {list(counts)}"
                    )
        return self


class ProbeDevice(Frozen):
    """Device that was measured, and the software on it: Python with its packages, or the compiler of C."""

    python: Text | None = None
    """Version of Python."""
    numpy: Text | None = None
    """Version of NumPy."""
    onnxruntime: Text | None = None
    """Version of ONNX Runtime."""
    compiler: Text | None = None
    """Name and version of the C compiler."""
    platform: Text
    """Operating system."""
    machine: Text
    """Instruction set."""
    cpu: Text
    """Processor."""
    cores: int = Field(ge=1, le=10**6)
    """Number of processor cores."""


class _Probe(Frozen):
    network: Name
    """Name of a network of the manifest."""
    precision: Precision
    """Precision of its weights."""
    threads: int = Field(ge=1, le=10**6)
    """Number of threads that it ran on."""


class ProbeTiming(_Probe):
    """Measured time of a probe."""

    median_us: Positive
    """Median of the rounds [us]."""
    spread: Ratio
    """Spread of the rounds, as a share of the median."""
    runs: int = Field(ge=1, le=10**12)
    """Number of inferences in all rounds together."""
    rounds_us: tuple[Positive, ...]
    """Time of one inference in each round [us]."""


class ProbeFailure(_Probe):
    """Probe that the device could not run."""

    reason: Text
    """Error message of the runtime."""


class ProbeResult(Document):
    """latency.json: measurements of the probe script, or of the program in C, on a device."""

    manifest_sha256: Text
    """SHA-256 of the manifest on the device."""
    device: ProbeDevice
    """Device that was measured."""
    complete: bool
    """True if all networks were timed."""
    peak_memory_bytes: NumBytes
    """Peak memory of the whole process [bytes]."""
    manifest: ProbeManifest
    """Manifest of the networks that were timed."""
    timings: tuple[ProbeTiming, ...]
    """Measured times."""
    failures: tuple[ProbeFailure, ...] = ()
    """Probes that could not be run."""

    @model_validator(mode="after")
    def _each_probe_once(self) -> "ProbeResult":
        found: tuple[_Probe, ...] = (*self.timings, *self.failures)
        probes = [(p.network, p.precision, p.threads) for p in found]
        _check_distinct(probes, "timings and failures")
        known = {n.name for n in self.manifest.networks}
        unknown = next((p[0] for p in probes if p[0] not in known), None)
        if unknown is not None:
            raise ValueError(f"timings: network {unknown!r} must be one of the manifest's")
        return self

    @model_validator(mode="after")
    def _software_is_of_the_engine(self) -> "ProbeResult":
        engine, software = self.manifest.engine, _SOFTWARE[self.manifest.engine]
        missing = next((name for name in software if getattr(self.device, name) is None), None)
        if missing is not None:
            raise ValueError(f"device: {missing} must be given for probes of engine {engine!r}, got none")
        return self


def _check_distinct(values: Iterable[object], where: str) -> None:
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise ValueError(f"{where}: entries must differ, got {twice[0]!r} twice")
