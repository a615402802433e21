"""Rehearsals for the terminal, readable at 80 columns: predicted beside measured."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from planner.report.text import align_right, make_table, name_text
from planner.schema import Percentiles, Rehearsal, RehearsedDevice, Step
from planner.units import count_noun, decimals_of_ms, format_bytes, format_ms, format_share, format_time_us, visible

_MISSING = "-"
# Steps that are made of others.
_SUMS = ("latency", "answer")
_HELD = {
    ("held", "planned"): "Links and compute are held to the plan.",
    ("held", "measured"): "Links are held to the plan; sub-models run at this machine's speed.",
    ("namespaces", "planned"): "Links are network namespaces; compute is held to the plan.",
    ("namespaces", "measured"): "Links are network namespaces; sub-models run at this machine's speed.",
}


def rehearsal_text(rehearsal: Rehearsal) -> RenderableType:
    """Return a rehearsal as a headline, a table of times, one of memory, and notes."""
    return Group(
        Text(rehearsal_headline(rehearsal), style="bold"),
        Text(held_text(rehearsal)),
        "",
        _times_table(rehearsal),
        "",
        _memory_table(rehearsal),
        *map(Text, rehearsal_notes(rehearsal)),
    )


def rehearsal_headline(rehearsal: Rehearsal) -> str:
    """Return predicted and measured latency in one line."""
    predicted, measured = rehearsal.latency.predicted_us, rehearsal.latency.measured_us
    expected = "nothing predicted" if predicted is None else f"predicted {format_time_us(predicted)}"
    found = "nothing measured" if measured is None else f"measured {format_time_us(measured.p50)}"
    return (
        f"Rehearsal of {visible(rehearsal.fleet)}: {count_noun(rehearsal.num_images, 'image')}, "
        f"{expected}, {found}{change_text(rehearsal.latency, ' (', ')')}"
    )


def change_text(step: Step, before: str = "", after: str = "") -> str:
    """Return the measured median relative to the prediction, such as "+4%"; empty where one of them is missing or 0."""
    if not step.predicted_us or step.measured_us is None:
        return ""
    return f"{before}{step.measured_us.p50 / step.predicted_us - 1:+.0%}{after}"


def is_sum(name: str) -> bool:
    """Return whether a step is made of others."""
    return name in _SUMS


def origin_text(name: str, step: Step) -> str:
    """Return whether a step's time was held, in part or not at all; empty for sums of steps."""
    return "" if name in _SUMS else step.origin


def steps_of(rehearsal: Rehearsal) -> Iterator[tuple[str, str, Step]]:
    """Yield device, name of the step, and step: those of each device, then of the whole."""
    for d in rehearsal.devices:
        for name, step in (("send", d.send), ("compute", d.compute), ("return", d.returned), ("latency", d.latency)):
            yield d.device, name, step
    yield "all", "fusion", rehearsal.fusion
    yield "all", "answer", rehearsal.latency


def rehearsal_notes(rehearsal: Rehearsal) -> Iterator[str]:
    """Yield what the numbers mean: accuracy, what was held, what stands in for what, and outages."""
    yield accuracy_note(rehearsal)
    lower = [f"{visible(d.device)} {d.precision}" for d in rehearsal.devices if d.precision != "float32"]
    if lower:
        yield (
            f"The bundle computes in float32; the export measured {format_share(rehearsal.exported_accuracy, 1)} with "
            f"{', '.join(lower)}."
        )
    yield from _held_notes(rehearsal)
    stand_ins = [visible(d.device) for d in rehearsal.devices if d.stand_in]
    if stand_ins:
        yield (
            f"ONNX Runtime stands in for the engine of {', '.join(stand_ins)}: their memory and compute here are not "
            "those of the boards."
        )
    in_c = [visible(d.device) for d in rehearsal.devices if d.engine == "c"]
    if in_c:
        yield (
            f"The peak of {', '.join(in_c)} is that of a Linux process with its C library; a microcontroller has none, "
            "and leaves weights in flash."
        )
    if rehearsal.was_busy:
        yield (
            f"This machine was busy (load {rehearsal.load_average:.1f} on {count_noun(rehearsal.num_cores, 'core')} "
            "before it began): rehearse again when it is not."
        )
    for d in rehearsal.devices:
        if d.num_overruns:
            yield (
                f"This machine was too slow for the plan of {visible(d.device)} in {d.num_overruns:,} of "
                f"{count_noun(d.num_replies, 'image')}."
            )
    yield from _outage_notes(rehearsal)
    if rehearsal.outages:
        lost = rehearsal.num_unanswered
        yield f"{count_noun(lost, 'image')} lost, since no device was there." if lost else "No answer was lost."
    if rehearsal.num_late:
        yield f"{count_noun(rehearsal.num_late, 'answer')} later than the deadline."


def held_text(rehearsal: Rehearsal) -> str:
    """Return which times were held to the plan, in a sentence."""
    return _HELD[rehearsal.links, rehearsal.compute]


def accuracy_note(rehearsal: Rehearsal) -> str:
    """Return the accuracy over the fleet beside the bundle's, in a sentence."""
    answered = (
        f"Accuracy over the fleet {format_share(rehearsal.accuracy, 1)}, "
        f"of the bundle {format_share(rehearsal.bundle_accuracy, 1)}"
    )
    if rehearsal.num_differing == 0:
        return f"{answered}: the same class for each of {count_noun(rehearsal.num_images, 'image')}."
    return f"{answered}: another class for {rehearsal.num_differing:,} of {count_noun(rehearsal.num_images, 'image')}."


def _held_notes(rehearsal: Rehearsal) -> Iterator[str]:
    if rehearsal.is_held:
        yield "Where it says held, the worker waited for the planned moment: such a number proves nothing."
    if rehearsal.links == "namespaces":
        yield (
            "Namespaces limit bandwidth, headers of packets included; a message of up to 1,600 bytes or 0.1 ms of its "
            "link passes at once. Latency is the part that is held."
        )
    elif rehearsal.num_shared_media:
        yield "On a shared medium each message is held as the last of all, as planned."
    if rehearsal.compute == "measured":
        if any(d.compute.predicted_us is None for d in rehearsal.devices):
            yield "The profile has no latency table of kind local, so nothing predicts this machine's compute."
        else:
            yield "Compute is predicted for kind local: the machine that measured the profile."
    yield f"Fusion is predicted for the fleet's aggregator, and measured here: {visible(rehearsal.machine)}."


def _outage_notes(rehearsal: Rehearsal) -> Iterator[str]:
    for outage in rehearsal.outages:
        back = (
            "was not back in time"
            if outage.back_s is None
            else f"was back {outage.back_s:.2f} s after it listened again, started before image "
            f"{outage.restarted_before:,}"
        )
        yield (
            f"{visible(outage.device)} was killed before image {outage.killed_before:,} and {back}; "
            f"{count_noun(outage.num_without, 'answer')} without it."
        )


def _times_table(rehearsal: Rehearsal) -> Table:
    table = make_table(
        "Predicted beside measured [ms]", "device", "step", "predicted", "p10", "p50", "p99", "change", "is"
    )
    steps = list(steps_of(rehearsal))
    shortest = min((s.predicted_us for _, name, s in steps if name in _SUMS and s.predicted_us), default=0)
    decimals = decimals_of_ms(shortest)
    previous = None
    for device, name, step in steps:
        whole = name in _SUMS
        table.add_row(
            name_text(device) if device != previous else "",
            name,
            _MISSING if step.predicted_us is None else format_ms(step.predicted_us, decimals),
            *_percentile_texts(step.measured_us, decimals),
            change_text(step) or _MISSING,
            origin_text(name, step),
            style="bold" if whole else None,
            end_section=whole,
        )
        previous = device
    table.columns[1].justify = "left"
    align_right(table)
    table.columns[1].justify = table.columns[-1].justify = "left"
    for column in table.columns[1:]:
        column.no_wrap = True
    return table


def _percentile_texts(measured: Percentiles | None, decimals: int) -> tuple[str, str, str]:
    if measured is None:
        return (_MISSING,) * 3
    return (
        format_ms(measured.p10, decimals),
        format_ms(measured.p50, decimals),
        format_ms(measured.p99, decimals),
    )


def _memory_table(rehearsal: Rehearsal) -> Table:
    table = make_table("Memory of each worker", "device", "planned", "of it runtime", "peak here", "without a model")
    for d in rehearsal.devices:
        table.add_row(name_text(d.device), *memory_texts(d))
    return align_right(table)


def memory_texts(device: RehearsedDevice) -> tuple[str, str, str, str]:
    """Return planned memory, the runtime's part of it, the measured peak, and the interpreter's part of that."""
    planned = (format_bytes(device.planned_memory_bytes), format_bytes(device.planned_runtime_bytes))
    measured = (device.peak_bytes, device.interpreter_bytes)
    peak, interpreter = (_MISSING if size is None else format_bytes(size) for size in measured)
    return *planned, peak, interpreter
