"""Parser of requested changes: text becomes axes of alternative scenarios, as do the entries of a scenarios.json.

drop       NAME or A,B                 both at once
add        KIND or KIND=COUNT          KIND may be a device of the fleet: one more of it
set        NAME.KEY=VALUE              split at the last dot before the key
scale      memory=0.5..2/7             seven equally spaced factors, both ends included; or 0.5,1,2
sweep      max-accuracy-drop=0.01,0.05
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import cast, get_args

from planner.errors import InputError, setting
from planner.rules.links import rational
from planner.schema import Fleet, Quantity, ScenarioEntry, ScenarioFile, SettingChange, did_you_mean
from planner.whatif.case import unreachable_devices
from planner.whatif.changes import AGGREGATOR, DEFAULT_LINK, Add, Change, Drop, Insert, Scale, SetGoal, SetKey

MAX_STEPS = 1000
# The keys of a goal that have a single value.
SWEEP_KEYS = (
    "max-accuracy-drop",
    "min-retention",
    "max-latency-ms",
    "max-energy-mj",
    "survive",
    "objective",
    "leave-idle",
    "method",
)


@dataclass(frozen=True)
class Scenario:
    """Named changes; `source` is the setting or file that they came from, for messages."""

    name: str
    changes: tuple[Change, ...]
    source: str = ""


# Alternatives, of which one holds at a time.
Axis = tuple[Scenario, ...]


@dataclass(frozen=True)
class ChangeRequest:
    """Requested changes as text, in the same form as on the command line."""

    drop: Sequence[str] = ()
    drop_each: bool = False
    add: Sequence[str] = ()
    add_each: Sequence[str] = ()
    set: Sequence[str] = ()
    scale: Sequence[str] = ()
    sweep: Sequence[str] = ()
    scenarios: ScenarioFile | None = None
    file: str = "scenarios"  # name of the file of the scenarios, for messages


def axes_of(request: ChangeRequest, fleet: Fleet) -> list[Axis]:
    """Return an axis of alternatives for each text of the request, and one for the scenarios of a file.

    Raises:
        InputError: If a text cannot be parsed; the message begins with its setting.
    """
    axes: list[Axis] = [(_drop(text, fleet),) for text in request.drop]
    if request.drop_each:
        axes.append(tuple(drop_scenario((m.name,), fleet, setting("drop_each")) for m in fleet.members))
    axes += [(_add(text, fleet, "add"),) for text in request.add]
    axes += [
        tuple(_add(kind, fleet, "add_each") for kind in _words(text, setting("add_each", text)))
        for text in request.add_each
    ]
    axes += [(_set(text, fleet),) for text in request.set]
    axes += [_scale(text) for text in request.scale]
    axes += [_sweep(text) for text in request.sweep]
    if request.scenarios is not None:
        entries = enumerate(request.scenarios.scenarios)
        axes.append(tuple(_entry(f"{request.file}: scenarios[{i}]", entry) for i, entry in entries))
    return axes


def drop_scenario(names: Sequence[str], fleet: Fleet, source: str) -> Scenario:
    """Return the loss of these devices; the name also lists the devices that are lost with them."""
    known = fleet.member_names
    lost = {member for name in names for member in known.get(name, ())}
    behind = [] if fleet.aggregator in lost else sorted(unreachable_devices(fleet, lost))
    with_it = f" (and with it {', '.join(behind)})" if behind else ""
    return Scenario(f"without {' and '.join(names)}{with_it}", (Drop(tuple(names)),), source)


def _drop(text: str, fleet: Fleet) -> Scenario:
    source = setting("drop", text)
    names = [text] if text in fleet.member_names else _words(text, source)
    return drop_scenario(names, fleet, source)


def _words(text: str, source: str, noun: str = "names") -> list[str]:
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise InputError(f"{source}: must be {noun} with commas between, got an empty one.")
    return words


def _add(text: str, fleet: Fleet, key: str) -> Scenario:
    source = setting(key, text)
    of, separator, number = text.rpartition("=")
    if not separator or text in fleet.member_names:
        return add_scenario(text, 1, source)
    count = int(number) if number.isdecimal() and len(number) < 6 else 0
    if not (of and 1 <= count <= 10_000):
        raise InputError(f"{source}: must be KIND=COUNT with a count from 1 to 10000, got {number!r}.")
    return add_scenario(of, count, source)


def add_scenario(of: str, count: int, source: str) -> Scenario:
    """Return the addition of devices of a kind, or of devices like one of the fleet."""
    return Scenario(f"+ {of}" if count == 1 else f"+ {count} {of}", (Add(of, count),), source)


def _set(text: str, fleet: Fleet) -> Scenario:
    source = setting("set", text)
    # Names may contain dots and equals signs: of all cuts, the first that gives a known name counts.
    cuts = [(*text[:i].rpartition(".")[::2], text[i + 1 :]) for i, letter in enumerate(text) if letter == "="]
    whole = [cut for cut in cuts if cut[1] and cut[2] and (cut[0] or cut[1] == AGGREGATOR)]
    if not whole:
        raise InputError(f"{source}: must be NAME.KEY=VALUE or {AGGREGATOR}=NAME, such as pi.memory_budget=256MiB.")
    known = {"", DEFAULT_LINK, *fleet.member_names}
    name, key, value = next((cut for cut in whole if cut[0] in known), whole[0])
    where = f"{name}.{key}" if name else key
    return Scenario(f"{where} {value}", (SetKey(name, key, _value(key, value)),), source)


def _value(key: str, text: str) -> SettingChange:
    """Return a value as a number if it is one, else as text; several precisions become a tuple."""
    if key == "precision" and "," in text:
        return tuple(text.split(","))
    if key in ("kind", AGGREGATOR):
        return text
    try:
        number = json.loads(text)
    except ValueError:
        return text
    return number if number is None or (isinstance(number, (int, float)) and not isinstance(number, bool)) else text


def _scale(text: str) -> Axis:
    source = setting("scale", text)
    quantity, _, values = text.partition("=")
    known = get_args(Quantity)
    if quantity not in known:
        raise InputError(
            f"{source}: must be {', '.join(known)} = factors, got {quantity!r}{did_you_mean(quantity, known) or '.'}"
        )
    factors = parse_numbers(values, source)
    if min(factors) <= 0:
        raise InputError(f"{source}: factors must be > 0, got {min(factors):g}.")
    scaled = cast(Quantity, quantity)
    pairs = zip(_labels(factors), factors, strict=True)
    return tuple(Scenario(f"{quantity} x{label}", (Scale(scaled, f),), source) for label, f in pairs)


def _sweep(text: str) -> Axis:
    source = setting("sweep", text)
    key, _, values = text.partition("=")
    if key not in SWEEP_KEYS:
        raise InputError(
            f"{source}: must be KEY=VALUES with a key of {', '.join(SWEEP_KEYS)}, "
            f"got {key!r}{did_you_mean(key, SWEEP_KEYS) or '.'}"
        )
    name = key.replace("-", "_")
    if key in ("objective", "method"):
        return tuple(Scenario(f"{key} {word}", (SetGoal(((name, word),)),), source) for word in _words(values, source))
    if key == "leave-idle":
        return tuple(_idle(word, source) for word in _words(values, source))
    found = parse_numbers(values, source)
    exact = [int(x) if key == "survive" and x.is_integer() else x for x in found]
    pairs = zip(_labels(found), exact, strict=True)
    return tuple(Scenario(f"{key} {label}", (SetGoal(((name, value),)),), source) for label, value in pairs)


def _idle(word: str, source: str) -> Scenario:
    if word not in ("true", "false"):
        raise InputError(f"{source}: must be true or false, got {word!r}.")
    return Scenario(f"leave-idle {word}", (SetGoal((("leave_idle", word == "true"),)),), source)


def parse_numbers(text: str, source: str) -> list[float]:
    """Return the numbers of "0.5..2/7" (equally spaced, both ends included) or "0.5,1,2".

    Raises:
        InputError: If the text is neither, or the range does not rise.
    """
    if ".." not in text:
        return [_number(word, source) for word in _words(text, source, "values")]
    ends, separator, steps = text.partition("/")
    first, last = (_number(end, source) for end in ends.split("..", maxsplit=1))
    if not separator or not steps.isdecimal() or not 2 <= int(steps[:9]) <= MAX_STEPS:
        got = repr(steps) if separator else "no /"
        raise InputError(f"{source}: a range must be A..B/N with N values from 2 to {MAX_STEPS}, got {got}.")
    if first >= last:
        raise InputError(f"{source}: a range A..B/N must rise, got {first:g} and {last:g}.")
    a, b, n = rational(first), rational(last), int(steps)
    return [float(a + (b - a) * Fraction(i, n - 1)) for i in range(n)]


def _number(text: str, source: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{source}: values must be numbers, got {text!r}.")
    return number


def _labels(values: Sequence[float]) -> list[str]:
    """Return the shortest labels that tell the numbers apart."""
    for form in (".4g", ".10g"):
        labels = [format(value, form) for value in values]
        if len(set(labels)) == len(set(values)):
            return labels
    return [repr(value) for value in values]


def _entry(where: str, entry: ScenarioEntry) -> Scenario:
    changes: list[Change] = [Drop(entry.drop)] if entry.drop else []
    changes += [Add(of, count) for of, count in entry.add.items()]
    if entry.devices or entry.links:
        changes.append(Insert(entry.devices, entry.links))
    source = f"{where} {entry.name!r}"
    for target, value in entry.set.items():
        name, _, key = target.rpartition(".")
        if not name and target != AGGREGATOR:
            raise InputError(f"{source}: set: must be NAME.KEY or {AGGREGATOR}, got {target!r}.")
        changes.append(SetKey(name, key, value))
    changes += [Scale(quantity, factor) for quantity, factor in entry.scale.items()]
    if entry.goal is not None and entry.goal.model_fields_set:
        changes.append(SetGoal.of(entry.goal))
    return Scenario(entry.name, tuple(changes), source)


def combine(parts: Iterable[Scenario]) -> Scenario:
    """Return a scenario with the changes of several."""
    several = list(parts)
    changes = tuple(change for part in several for change in part.changes)
    return Scenario(", ".join(part.name for part in several), changes, "; ".join(part.source for part in several))
