"""A running fleet as text: a table of its devices, and a line for logs."""

from rich.console import Group
from rich.table import Table
from rich.text import Text

from planner.runtime.measurements import DeviceState, FleetState
from planner.schema.rehearsal import Percentiles
from planner.units import count_noun, format_bytes, format_ms, format_time_us, shorten

_MAX_MISSING = 5


def fleet_table(devices: tuple[DeviceState, ...], fleet: FleetState, planned_latency_us: int) -> Group:
    """Return the devices with predicted beside measured times, and the answers of the whole fleet."""
    table = Table(title=Text(fleet_line(devices, fleet, planned_latency_us)), title_justify="left", title_style="")
    for name in ("device", "state"):
        table.add_column(name)
    for name in ("send + return [ms]", "p50", "p99", "compute [ms]", "p50", "p99", "memory", "peak", "missed"):
        # As text, since [ms] would be taken for markup.
        table.add_column(Text(name), justify="right")
    for device in devices:
        planned = device.planned
        table.add_row(
            Text(shorten(device.name)),
            _state(device),
            format_ms(planned.send_us + planned.return_us),
            *_times(device.transport),
            format_ms(planned.compute_us),
            *_times(device.compute),
            format_bytes(planned.memory_bytes),
            "-" if device.peak_memory_bytes is None else format_bytes(device.peak_memory_bytes),
            f"{device.missed:,}",
        )
    reasons = [Text(f"{shorten(d.name)}: {d.reason}") for d in devices if not d.is_up and d.reason]
    without = [
        Text(f"without {', '.join(map(shorten, names))}: {count_noun(count, 'answer')}")
        for names, count in fleet.missing[:_MAX_MISSING]
    ]
    return Group(table, *reasons, *without)


def fleet_line(devices: tuple[DeviceState, ...], fleet: FleetState, planned_latency_us: int) -> str:
    """Return the state of a fleet in one line."""
    up = sum(device.is_up for device in devices)
    latency = "none measured"
    if fleet.latency is not None:
        latency = f"p50 {format_time_us(fleet.latency.p50)}, p99 {format_time_us(fleet.latency.p99)}"
    without = sum(count for _, count in fleet.missing)
    return (
        f"{up} of {count_noun(len(devices), 'device')} up; {count_noun(fleet.answered, 'answer')}, "
        f"{fleet.images_per_second:,.1f} a second, {without:,} without a device; "
        f"latency {format_time_us(planned_latency_us)} planned, {latency}"
    )


def _state(device: DeviceState) -> Text:
    seconds = int(device.since_s)
    since = f"{seconds} s" if seconds < 120 else f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h"
    return Text(f"{'up' if device.is_up else 'down'} {since}", style="green" if device.is_up else "red")


def _times(times: Percentiles | None) -> tuple[str, str]:
    return ("-", "-") if times is None else (format_ms(times.p50), format_ms(times.p99))
