"""What a device measured becomes rows of a profile's latency table, unless it cannot be trusted.

The story: is it this model's, is it whole, is any time absurd, does the latency model hold?
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner.errors import InputError
from planner.profiler.device.latency_fit import Fit, Timed, fit_latency, num_parameters
from planner.schema import (
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

# More networks than parameters, so that some errors can be seen.
SPARE_NETWORKS = 4

# A time this many times too long or short is a mishap, if few are; many are a device that the model does not fit.
_ABSURD = 3.0
_FEW = 1 / 6
_WARN_MAPE, _WARN_P95, _REFUSE_MAPE = 0.05, 0.15, 0.20
_RESTLESS = 0.1

_AGAIN = "run python probe.py again"


@dataclass(frozen=True)
class DeviceTable:
    """The rows of a device's latency table, and what its user should know."""

    rows: tuple[LatencyRow, ...]
    notes: tuple[str, ...]


def latency_table(result: ProbeResult, profile: Profile, threads: int) -> DeviceTable:
    """Fit the latency model to a device's timings.

    Args:
        result: What the probe script measured.
        profile: Of the same model; its embed widths get rows as well as the timed ones.
        threads: How many threads the sub-models will run on.

    Raises:
        InputError: If the timings are another model's, changed, incomplete or absurd, or the model is off by over 20 %
            on networks that it has not seen.
    """
    _check_model(result, profile)
    _check_whole(result, threads)
    rows: list[LatencyRow] = []
    notes: list[str] = []
    for precision in dict.fromkeys(p for network in result.manifest.networks for p in network.files):
        failures = [f for f in result.failures if (f.precision, f.threads) == (precision, threads)]
        notes += _failure_notes(failures, f"{precision} on {_threads(threads)}")
        if not any((t.precision, t.threads) == (precision, threads) for t in result.timings):
            continue
        fitted, num_networks, spread = _fit(result, precision, threads)
        notes += _notes(fitted, f"{precision} on {_threads(threads)}", spread)
        d = result.device
        source = (
            f"measured: onnxruntime {d.onnxruntime}, {precision}, {_threads(threads)}, {d.cpu} ({d.machine}), "
            f"{num_networks} networks"
        )
        rows += [fitted.row(e, precision, source) for e in _row_widths(result.manifest, profile)]
    if not rows:
        raise InputError(f"timings: at least one network must run on the device, none did. {notes[0]}")
    return DeviceTable(tuple(rows), tuple(notes))


def with_table(profile: Profile, kind: str, rows: Sequence[LatencyRow]) -> Profile:
    """Return the profile with these rows in the kind's table, in the place of those of the same width and precision."""
    new = {(r.embed_dim, r.precision) for r in rows}
    kept = [r for r in profile.latency.get(kind, ()) if (r.embed_dim, r.precision) not in new]
    return profile.replace(latency=profile.latency | {kind: (*kept, *rows)})


def _check_model(result: ProbeResult, profile: Profile) -> None:
    manifest = result.manifest
    sizes = {
        "model": (profile.model, manifest.model),
        "num_tokens": (profile.num_tokens, manifest.num_tokens),
        "depth": (profile.depth, manifest.depth),
        "num_heads": (profile.num_heads, manifest.num_heads),
        "head_dim": (profile.head_dim, manifest.head_dim),
        "hidden_dim": (profile.hidden_dim, manifest.hidden_dim),
        "embed_dim": (max(w.embed_dim for w in profile.widths), max(manifest.widths)),
    }
    for name, (must, got) in sizes.items():
        if must != got:
            raise InputError(
                f"the timings must be of the profile's model, whose {name} is {must}, got those of one whose {name} "
                f"is {got}; make the probes of {profile.model!r}, or give the profile of {manifest.model!r}."
            )
    actual = sha256_of(manifest)
    if actual != result.manifest_sha256:
        raise InputError(
            f"manifest: SHA-256 must be {result.manifest_sha256[:12]}..., got {actual[:12]}...: it is not the one that "
            f"was timed; {_AGAIN} in an unchanged probe folder."
        )


def _check_whole(result: ProbeResult, threads: int) -> None:
    timed = sorted({p.threads for p in (*result.timings, *result.failures)})
    if threads not in timed:
        raise InputError(
            f"--threads must be one of those timed ({', '.join(map(str, timed)) or 'none'}), got {threads}; "
            f"run python probe.py --threads {threads} on the device."
        )
    done = {(p.network, p.precision) for p in (*result.timings, *result.failures) if p.threads == threads}
    probes = [(n.name, precision) for n in result.manifest.networks for precision in n.files]
    missing = [f"{name} {precision}" for name, precision in probes if (name, precision) not in done]
    if missing:
        more = f" and {len(missing) - 1} more" * (len(missing) > 1)
        raise InputError(
            f"timings: every network must be timed on {_threads(threads)}, {missing[0]}{more} was not; {_AGAIN}, "
            "it goes on from where it was."
        )
    if not result.complete:
        raise InputError(f"complete: must be true, got an interrupted run; {_AGAIN}, it goes on from where it was.")


def _fit(result: ProbeResult, precision: Precision, threads: int) -> tuple[Fit, int, float]:
    """Return the fit of one precision, the number of networks, and the spread that one time in ten exceeds."""
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
    fitted = fit_latency(timed)
    absurd = np.flatnonzero(np.abs(fitted.residuals) > math.log(_ABSURD))
    if 0 < len(absurd) <= max(1, _FEW * len(timed)):
        i = int(absurd[np.argmax(np.abs(fitted.residuals[absurd]))])
        predicted = timings[i].median_us * math.exp(fitted.residuals[i])
        raise InputError(
            f"timings: network {timings[i].network!r} ({precision}, {_threads(threads)}) must take about "
            f"{predicted:.3g} us like the others of its size, got {timings[i].median_us:.3g} us; {_AGAIN}."
        )
    spread = float(np.quantile([t.spread for t in timings], 0.9))
    fitted = fit_latency([_timed(networks[t.network], us) for t, us in zip(timings, _steady_us(timings), strict=True)])
    if fitted.mape > _REFUSE_MAPE:
        raise InputError(
            f"timings: the latency model must foretell networks that it has not seen to {_REFUSE_MAPE:.0%}, "
            f"{precision} on {_threads(threads)} is off by {fitted.mape:.0%}; {_remedy(spread)}."
        )
    return fitted, len(timed), spread


def _steady_us(timings: Sequence[ProbeTiming]) -> list[float]:
    """Return times [us] that other work on the device hardly disturbs: the shortest rounds, at the medians' level.

    What a disturbance adds differs from network to network, so medians would be fitted to it; that they are longer
    on the whole is kept.
    """
    shortest = [min(t.rounds_us, default=t.median_us) for t in timings]
    level = float(np.median([t.median_us / us for t, us in zip(timings, shortest, strict=True)]))
    return [us * level for us in shortest]


def _failure_notes(failures: Sequence[ProbeFailure], what: str) -> list[str]:
    if not failures:
        return []
    names = ", ".join(f.network for f in failures)
    return [f"{what}: the device could not run {names}, which are left out ({failures[0].reason})."]


def _notes(fitted: Fit, what: str, spread: float) -> list[str]:
    if fitted.mape <= _WARN_MAPE and fitted.p95_error <= _WARN_P95:
        return []
    return [
        f"{what}: times of new networks are off by {fitted.mape:.1%}, one in twenty by over {fitted.p95_error:.1%}; "
        f"{_remedy(spread)}."
    ]


def _remedy(spread: float) -> str:
    """Return what to do about a bad fit: the noise of the timings says whether they or the model are to blame."""
    if spread > _RESTLESS:
        return f"timings vary by up to {spread:.0%}: {_AGAIN} with nothing else running on the device"
    return (
        f"timings vary by {spread:.0%} at most, so this device's time is not a sum over heads and channels: "
        "plan with a margin, or give the device a macs_per_second"
    )


def _row_widths(manifest: ProbeManifest, profile: Profile) -> list[int]:
    """Return the embed widths that were timed and those of the profile, which must lie between."""
    outside = [w.embed_dim for w in profile.widths if not min(manifest.widths) <= w.embed_dim]
    if outside:
        raise InputError(
            f"widths: the profile has embed_dim {outside[0]}, narrower than all that was timed "
            f"({min(manifest.widths)}); make the probes again."
        )
    return sorted({*manifest.widths, *(w.embed_dim for w in profile.widths)}, reverse=True)


def _timed(network: ProbeNetwork, time_us: float) -> Timed:
    return Timed(network.embed_dim, network.num_heads, network.hidden_dim, time_us)


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"
