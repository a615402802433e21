"""Latency table of a device, from the timings of its probes, unless these are unreliable.

The checks: the timings are of the profile's model, they are complete, no time is an outlier, the latency model fits.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner.errors import InputError, setting
from planner.profiler.device.latency_fit import LastBlock, LatencyFit, TimedNetwork, fit_latency, num_parameters
from planner.schema import (
    Engine,
    LatencyRow,
    Precision,
    ProbeFailure,
    ProbeManifest,
    ProbeNetwork,
    ProbeResult,
    ProbeTiming,
    Profile,
    sha256_of,
)

# Networks beyond the number of parameters: degrees of freedom from which errors are estimated.
SPARE_NETWORKS = 4

# A time that is off by this factor is an outlier, if it is rare; if it is frequent, the model does not fit the device.
_OUTLIER_FACTOR = 3.0
_MAX_OUTLIER_SHARE = 1 / 6
_WARN_MAPE, _WARN_P95, _REFUSE_MAPE = 0.05, 0.15, 0.20
# Spread of the timings above which they are blamed for a bad fit.
_HIGH_SPREAD = 0.1

_RERUN: dict[Engine, str] = {"onnxruntime": "run python probe.py again", "c": "run the probes again"}
# Of an interrupted run, the script keeps what it has.
_GO_ON: dict[Engine, str] = {"onnxruntime": f"{_RERUN['onnxruntime']}, it goes on from where it was", "c": _RERUN["c"]}


@dataclass(frozen=True)
class DeviceTable:
    """Rows of a device's latency table, and notes for its user."""

    rows: tuple[LatencyRow, ...]
    notes: tuple[str, ...]


def latency_table(result: ProbeResult, profile: Profile, threads: int) -> DeviceTable:
    """Fit the latency model to a device's timings.

    Args:
        result: Result of the probe script.
        profile: Profile of the same model; its embed widths get rows as well as the timed ones.
        threads: Number of threads that the sub-models will run on.

    Raises:
        InputError: If the timings are another model's, changed, incomplete or have outliers, or if the leave-one-out
            error of the latency model exceeds 20 %.
    """
    _check_model(result, profile)
    _check_complete(result, threads)
    rows: list[LatencyRow] = []
    notes: list[str] = []
    for precision in dict.fromkeys(p for network in result.manifest.networks for p in network.files):
        failures = [f for f in result.failures if (f.precision, f.threads) == (precision, threads)]
        notes += _failure_notes(failures, f"{precision} on {_threads(threads)}")
        if not any((t.precision, t.threads) == (precision, threads) for t in result.timings):
            continue
        fitted, num_networks, spread = _fit(result, precision, threads)
        notes += _notes(fitted, f"{precision} on {_threads(threads)}", _remedy(spread, result.manifest.engine))
        source = (
            f"measured: {_software(result)}, {precision}, {_threads(threads)}, {result.device.cpu} "
            f"({result.device.machine}), {num_networks} networks"
        )
        engine = result.manifest.engine
        rows += [fitted.row(e, precision, engine, source) for e in _row_widths(result.manifest, profile)]
    if not rows:
        raise InputError(f"timings: at least one network must run on the device, none did. {notes[0]}")
    return DeviceTable(tuple(rows), tuple(notes))


def with_table(profile: Profile, kind: str, rows: Sequence[LatencyRow]) -> Profile:
    """Return the profile with these rows in a kind's table; they replace those of equal width, precision and engine."""
    new = {(r.embed_dim, r.precision, r.engine) for r in rows}
    others = [r for r in profile.latency.get(kind, ()) if (r.embed_dim, r.precision, r.engine) not in new]
    return profile.replace(latency=profile.latency | {kind: (*others, *rows)})


def _check_model(result: ProbeResult, profile: Profile) -> None:
    manifest = result.manifest
    sizes = {
        "model": (profile.model, manifest.model),
        "num_tokens": (profile.num_tokens, manifest.num_tokens),
        "depth": (profile.depth, manifest.depth),
        "num_heads": (profile.num_heads, manifest.num_heads),
        "head_dim": (profile.head_dim, manifest.head_dim),
        "hidden_dim": (profile.hidden_dim, manifest.hidden_dim),
        "gated_mlp": (profile.gated_mlp, manifest.gated_mlp),
        "qk_norm": (profile.qk_norm, manifest.qk_norm),
        "embed_dim": (max(w.embed_dim for w in profile.widths), max(manifest.widths)),
    }
    for name, (expected, got) in sizes.items():
        if expected != got:
            raise InputError(
                f"the timings must be of the profile's model, whose {name} is {expected}, got those of one whose "
                f"{name} is {got}; make the probes of {profile.model!r}, or give the profile of {manifest.model!r}."
            )
    actual = sha256_of(manifest)
    if actual != result.manifest_sha256:
        raise InputError(
            f"manifest: SHA-256 must be {result.manifest_sha256[:12]}..., got {actual[:12]}...: it is not the one that "
            f"was timed; {_RERUN[manifest.engine]} in an unchanged probe folder."
        )


def _check_complete(result: ProbeResult, threads: int) -> None:
    engine = result.manifest.engine
    timed = sorted({p.threads for p in (*result.timings, *result.failures)})
    if threads not in timed:
        remedy = (
            "sub-models in C run on one"
            if engine == "c"
            else f"run probe.py on the device with {setting('threads', threads)}"
        )
        raise InputError(
            f"{setting('threads')} must be one of those timed ({', '.join(map(str, timed)) or 'none'}), got {threads}; "
            f"{remedy}."
        )
    done = {(p.network, p.precision) for p in (*result.timings, *result.failures) if p.threads == threads}
    probes = [(n.name, precision) for n in result.manifest.networks for precision in n.files]
    missing = [f"{name} {precision}" for name, precision in probes if (name, precision) not in done]
    if missing:
        more = f" and {len(missing) - 1} more" * (len(missing) > 1)
        raise InputError(
            f"timings: every network must be timed on {_threads(threads)}, {missing[0]}{more} was not; "
            f"{_GO_ON[engine]}."
        )
    if not result.complete:
        raise InputError(f"complete: must be true, got an interrupted run; {_GO_ON[engine]}.")


def _fit(result: ProbeResult, precision: Precision, threads: int) -> tuple[LatencyFit, int, float]:
    """Return the fit of one precision, the number of networks, and the 90th percentile of the timings' spreads."""
    networks = {n.name: n for n in result.manifest.networks}
    timings = [t for t in result.timings if (t.precision, t.threads) == (precision, threads)]
    timed = [_timed(networks[t.network], t.median_us) for t in timings]
    all_networks = [_timed(n, 1.0) for n in networks.values() if precision in n.files]
    needed = num_parameters(all_networks)
    if len(timed) < needed + SPARE_NETWORKS or num_parameters(timed) < needed:
        raise InputError(
            f"timings: {precision} on {_threads(threads)} must have at least {needed + SPARE_NETWORKS} networks that "
            f"differ in width, heads and channels, got {len(timed)} of {len(all_networks)}; see its failures, "
            "and make probes of a smaller model or of another precision."
        )
    last_block = last_block_of(result.manifest)
    fitted = fit_latency(timed, last_block)
    outliers = np.flatnonzero(np.abs(fitted.residuals) > math.log(_OUTLIER_FACTOR))
    if 0 < len(outliers) <= max(1, _MAX_OUTLIER_SHARE * len(timed)):
        i = int(outliers[np.argmax(np.abs(fitted.residuals[outliers]))])
        predicted = timings[i].median_us * math.exp(fitted.residuals[i])
        raise InputError(
            f"timings: network {timings[i].network!r} ({precision}, {_threads(threads)}) must take about "
            f"{predicted:.3g} us like the others of its size, got {timings[i].median_us:.3g} us; "
            f"{_RERUN[result.manifest.engine]}."
        )
    spread = float(np.quantile([t.spread for t in timings], 0.9))
    steady = [_timed(networks[t.network], us) for t, us in zip(timings, _steady_us(timings), strict=True)]
    fitted = fit_latency(steady, last_block)
    if fitted.mape > _REFUSE_MAPE:
        raise InputError(
            f"timings: the latency model must predict networks that it has not seen to {_REFUSE_MAPE:.0%}, "
            f"{precision} on {_threads(threads)} is off by {fitted.mape:.0%}; "
            f"{_remedy(spread, result.manifest.engine)}."
        )
    return fitted, len(timed), spread


def _steady_us(timings: Sequence[ProbeTiming]) -> list[float]:
    """Return times [us] that other load on the device hardly disturbs: the shortest rounds, scaled to the medians.

    A disturbance differs from network to network, so a fit to medians would follow it; the overall level of the
    medians is kept.
    """
    shortest = [min(t.rounds_us, default=t.median_us) for t in timings]
    level = float(np.median([t.median_us / us for t, us in zip(timings, shortest, strict=True)]))
    return [us * level for us in shortest]


def _failure_notes(failures: Sequence[ProbeFailure], label: str) -> list[str]:
    if not failures:
        return []
    names = ", ".join(f.network for f in failures)
    return [f"{label}: the device could not run {names}, which are left out ({failures[0].reason})."]


def _notes(fitted: LatencyFit, label: str, remedy: str) -> list[str]:
    if fitted.mape <= _WARN_MAPE and fitted.p95_error <= _WARN_P95:
        return []
    return [
        f"{label}: times of new networks are off by {fitted.mape:.1%}, one in twenty by over {fitted.p95_error:.1%}; "
        f"{remedy}."
    ]


def _remedy(spread: float, engine: Engine) -> str:
    """Return advice about a bad fit: the spread of the timings tells whether they or the model are to blame."""
    if spread > _HIGH_SPREAD:
        return f"timings vary by up to {spread:.0%}: {_RERUN[engine]} with nothing else running on the device"
    return (
        f"timings vary by {spread:.0%} at most, so this device's time is not a sum over heads and channels: "
        "plan with a margin, or give the device a macs_per_second"
    )


def _row_widths(manifest: ProbeManifest, profile: Profile) -> list[int]:
    """Return the embed widths of sub-models and profile up to the widest that was timed; none may be narrower.

    Wider ones do not fit the device.
    """
    timed = [n.embed_dim for n in manifest.networks]
    widths = {*manifest.widths, *(w.embed_dim for w in profile.widths)}
    if min(widths) < min(timed):
        raise InputError(
            f"widths: the profile has embed_dim {min(widths)}, narrower than all that was timed "
            f"({min(timed)}); make the probes again."
        )
    return sorted((e for e in widths if e <= max(timed)), reverse=True)


def last_block_of(manifest: ProbeManifest) -> LastBlock | None:
    """Return the last block of a manifest's networks, where not all of it is computed."""
    num_read = manifest.num_pooled_tokens
    return None if num_read is None else LastBlock(manifest.num_tokens, num_read, manifest.head_dim)


def _timed(network: ProbeNetwork, time_us: float) -> TimedNetwork:
    return TimedNetwork(network.embed_dim, network.num_heads, network.hidden_dim, time_us)


def _software(result: ProbeResult) -> str:
    if result.manifest.engine == "c":
        return f"engine c, {result.device.compiler}"
    return f"onnxruntime {result.device.onnxruntime}"


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"
