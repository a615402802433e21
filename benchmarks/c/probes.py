"""Latency model of the C engine, fitted to the probes of a model: its errors on probes that were held out."""

import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.c.cores import CORES, time_probes
from planner.profiler.device.latency_fit import TimedNetwork, fit_latency
from planner.profiler.device.latency_table import last_block_of
from planner.runtime.c.probes.folder import make_c_probes
from planner.schema import Precision, ProbeResult, read_document

# Flash of a microcontroller, which the whole model does not fit.
_STORAGE_BYTES = 512 * 1024
_MODEL, _LARGER_MODEL = "digits-vit", "vit_tiny_patch16_224"
# On this machine: what the table calls it, model, architecture.
_BUILDS = (
    ("this machine", _MODEL, "-march=native"),
    ("this machine, vectors of 4", _MODEL, "-march=x86-64"),
    ("this machine, ViT-Tiny", _LARGER_MODEL, "-march=native"),
)


@dataclass(frozen=True)
class ProbeErrors:
    """Errors of the latency model as shares, of probes with a head, each predicted from all others."""

    where: str
    precision: Precision
    mean: float
    p95: float
    largest: float


def probe_errors() -> Iterator[ProbeErrors]:
    """Time the probes on each core under qemu and on this machine, and yield the errors at each precision."""
    for core in CORES:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_c_probes(_MODEL, folder, storage_bytes=_STORAGE_BYTES)
            # Instructions are always as many.
            short = ("PROBE_ROUNDS=1", "PROBE_WARM_MS=0", "PROBE_TIMED_MS=0")
            yield from _errors(core.name, time_probes(core, folder, short)[0], folder)
    for where, model, architecture in _BUILDS:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_c_probes(model, folder)
            subprocess.run(["make", "-C", name, f"CFLAGS=-O3 {architecture}"], check=True, stdout=subprocess.DEVNULL)
            printed = subprocess.run([folder / "probe"], check=True, stdout=subprocess.PIPE, text=True).stdout
            yield from _errors(where, printed, folder)


def _errors(where: str, latency: str, folder: Path) -> Iterator[ProbeErrors]:
    (folder / "latency.json").write_text(latency)
    result = read_document(folder / "latency.json", ProbeResult)
    networks = {network.name: network for network in result.manifest.networks}
    for precision in dict.fromkeys(t.precision for t in result.timings):
        timings = [(networks[t.network], min(t.rounds_us)) for t in result.timings if t.precision == precision]
        timed = [TimedNetwork(n.embed_dim, n.num_heads, n.hidden_dim, us) for n, us in timings]
        fitted = fit_latency(timed, last_block_of(result.manifest))
        yield ProbeErrors(where, precision, fitted.mape, fitted.p95_error, float(fitted.errors.max()))
