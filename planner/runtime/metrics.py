"""Metrics of a running fleet in the text format of Prometheus, version 0.0.4."""

from collections.abc import Callable, Iterator

from planner.runtime.measurements import DeviceState
from planner.runtime.service import Snapshot
from planner.schema.rehearsal import Percentiles

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_US = 1e-6
_QUANTILES: tuple[tuple[str, Callable[[Percentiles], float]], ...] = (
    ("0.5", lambda times: times.p50),
    ("0.99", lambda times: times.p99),
)


def prometheus_text(snapshot: Snapshot) -> str:
    """Return all metrics of a snapshot; times are in seconds, as is usual there."""
    return "".join(f"{line}\n" for line in _lines(snapshot))


def _lines(snapshot: Snapshot) -> Iterator[str]:
    devices, fleet = snapshot
    yield from _head("planner_answers_total", "counter", "Images that were answered.")
    yield f"planner_answers_total {fleet.answered}"
    yield from _head("planner_images_per_second", "gauge", "Answers a second, over the last ten seconds.")
    yield f"planner_images_per_second {fleet.images_per_second:.6g}"
    yield from _head("planner_latency_seconds", "gauge", "Time from the image to the answer, of the last images.")
    yield from _times("planner_latency_seconds", {}, fleet.latency)
    yield from _of_devices(devices, "up", "gauge", "1 if the worker is connected.", lambda d: int(d.is_up))
    yield from _of_devices(devices, "answers_total", "counter", "Images answered in time.", lambda d: d.answered)
    yield from _of_devices(
        devices, "missed_total", "counter", "Images that were answered without the device.", lambda d: d.missed
    )
    for part in ("send", "compute", "return"):
        yield from _of_devices(
            devices,
            f"planned_{part}_seconds",
            "gauge",
            f"Planned time of {part}.",
            lambda d, key=f"{part}_us": getattr(d.planned, key) * _US,  # type: ignore[misc]
        )
    for name, text in (("transport", "Measured time of all but compute"), ("compute", "Measured compute time")):
        yield from _head(f"planner_device_{name}_seconds", "gauge", f"{text}, of the last images.")
        for device in devices:
            yield from _times(f"planner_device_{name}_seconds", {"device": device.name}, getattr(device, name))
    yield from _of_devices(
        devices, "planned_memory_bytes", "gauge", "Planned memory.", lambda d: d.planned.memory_bytes
    )
    yield from _of_devices(
        devices, "peak_memory_bytes", "gauge", "Peak memory of the worker.", lambda d: d.peak_memory_bytes
    )


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"


def _of_devices(
    devices: tuple[DeviceState, ...], name: str, kind: str, text: str, value: Callable[[DeviceState], float | None]
) -> Iterator[str]:
    full = f"planner_device_{name}"
    yield from _head(full, kind, text)
    for device in devices:
        number = value(device)
        if number is not None:
            yield f"{full}{_labels({'device': device.name})} {number:.10g}"


def _times(name: str, labels: dict[str, str], times: Percentiles | None) -> Iterator[str]:
    if times is not None:
        for quantile, value in _QUANTILES:
            yield f"{name}{_labels({**labels, 'quantile': quantile})} {value(times) * _US:.6g}"


def _labels(labels: dict[str, str]) -> str:
    return "{" + ",".join(f'{key}="{_escaped(value)}"' for key, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
