"""What is asked, as text, becomes axes: alternatives, of which each is one change or the changes of a file's entry.

drop       NAME or A,B                 both at once
add        KIND or KIND=COUNT          KIND may be a device of the fleet: one more of it
set        NAME.KEY=VALUE              the last dot of the name counts
scale      memory=0.5..2/7             seven factors with equal steps, both ends in it; or 0.5,1,2
sweep      max-accuracy-drop=0.01,0.05
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import cast, get_args

from planner.errors import InputError
from planner.rules.links import rational
from planner.schema import Fleet, Quantity, ScenarioEntry, ScenarioFile, SettingChange, nearest
from planner.whatif.case import cut_off
from planner.whatif.changes import AGGREGATOR, DEFAULT_LINK, Add, Ask, Change, Describe, Drop, Scale, Set

MOST_STEPS = 1000
# The keys of a goal that are one value.
SWEPT = (
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
    """Changes with a name; `source` is where they were given, for complaints."""

    name: str
    changes: tuple[Change, ...]
    source: str = ""


# Of these one at a time.
Axis = tuple[Scenario, ...]


@dataclass(frozen=True)
class ChangeRequest:
    """Changes as text, each use of a flag for itself, as on the command line."""

    drop: Sequence[str] = ()
    drop_each: bool = False
    add: Sequence[str] = ()
    add_each: Sequence[str] = ()
    set: Sequence[str] = ()
    scale: Sequence[str] = ()
    sweep: Sequence[str] = ()
    scenarios: ScenarioFile | None = None
    file: str = "scenarios"  # where these come from, for complaints


def axes_of(asked: ChangeRequest, fleet: Fleet) -> list[Axis]:
    """Return an axis of alternatives for each use of a flag, and one for a scenario file.

    Raises:
        InputError: If a text is not what its flag takes, with the flag in front.
    """
    axes: list[Axis] = [(_drop(text, fleet),) for text in asked.drop]
    if asked.drop_each:
        axes.append(tuple(dropped((m.name,), fleet, "--drop-each") for m in fleet.members))
    axes += [(_add(text, fleet, "--add"),) for text in asked.add]
    axes += [
        tuple(_add(kind, fleet, "--add-each") for kind in _words(text, f"--add-each {text}")) for text in asked.add_each
    ]
    axes += [(_set(text, fleet),) for text in asked.set]
    axes += [_scale(text) for text in asked.scale]
    axes += [_sweep(text) for text in asked.sweep]
    if asked.scenarios is not None:
        axes.append(
            tuple(_entry(f"{asked.file}: scenarios[{i}]", entry) for i, entry in enumerate(asked.scenarios.scenarios))
        )
    return axes


def dropped(names: Sequence[str], fleet: Fleet, source: str) -> Scenario:
    """Return the loss of these devices; what is lost with them is in the name."""
    known = fleet.member_names
    lost = {member for name in names for member in known.get(name, ())}
    behind = [] if fleet.aggregator in lost else sorted(cut_off(fleet, lost))
    with_it = f" (and with it {', '.join(behind)})" if behind else ""
    return Scenario(f"without {' and '.join(names)}{with_it}", (Drop(tuple(names)),), source)


def _drop(text: str, fleet: Fleet) -> Scenario:
    names = [text] if text in fleet.member_names else _words(text, f"--drop {text}")
    return dropped(names, fleet, f"--drop {text}")


def _words(text: str, source: str, what: str = "names") -> list[str]:
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise InputError(f"{source}: must be {what} with commas between, got an empty one.")
    return words


def _add(text: str, fleet: Fleet, flag: str) -> Scenario:
    of, separator, number = text.rpartition("=")
    if not separator or text in fleet.member_names:
        return added(text, 1, f"{flag} {text}")
    count = int(number) if number.isdecimal() and len(number) < 6 else 0
    if not (of and 1 <= count <= 10_000):
        raise InputError(f"{flag} {text}: must be KIND=COUNT with a count from 1 to 10000, got {number!r}.")
    return added(of, count, f"{flag} {text}")


def added(of: str, count: int, source: str) -> Scenario:
    """Return more devices of a kind."""
    return Scenario(f"+ {of}" if count == 1 else f"+ {count} {of}", (Add(of, count),), source)


def _set(text: str, fleet: Fleet) -> Scenario:
    # A name may hold dots and equals signs: the first cut that gives a known name counts.
    cuts = [(*text[:i].rpartition(".")[::2], text[i + 1 :]) for i, letter in enumerate(text) if letter == "="]
    whole = [cut for cut in cuts if cut[1] and cut[2] and (cut[0] or cut[1] == AGGREGATOR)]
    if not whole:
        raise InputError(f"--set {text}: must be NAME.KEY=VALUE or {AGGREGATOR}=NAME, such as pi.memory_budget=256MiB.")
    known = {"", DEFAULT_LINK, *fleet.member_names}
    name, key, value = next((cut for cut in whole if cut[0] in known), whole[0])
    where = f"{name}.{key}" if name else key
    return Scenario(f"{where} {value}", (Set(name, key, _value(key, value)),), f"--set {text}")


def _value(key: str, text: str) -> SettingChange:
    """Return a number where it is one, else the word; several precisions are a list."""
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
    quantity, _, values = text.partition("=")
    known = get_args(Quantity)
    if quantity not in known:
        raise InputError(
            f"--scale {text}: must be {', '.join(known)} = factors, got {quantity!r}{nearest(quantity, known) or '.'}"
        )
    factors = numbers(values, f"--scale {text}")
    if min(factors) <= 0:
        raise InputError(f"--scale {text}: factors must be > 0, got {min(factors):g}.")
    known_as = cast(Quantity, quantity)
    pairs = zip(_labels(factors), factors, strict=True)
    return tuple(Scenario(f"{quantity} x{label}", (Scale(known_as, f),), f"--scale {text}") for label, f in pairs)


def _sweep(text: str) -> Axis:
    key, _, values = text.partition("=")
    if key not in SWEPT:
        raise InputError(
            f"--sweep {text}: must be KEY=VALUES with a key of {', '.join(SWEPT)}, "
            f"got {key!r}{nearest(key, SWEPT) or '.'}"
        )
    name, source = key.replace("-", "_"), f"--sweep {text}"
    if key in ("objective", "method"):
        return tuple(Scenario(f"{key} {word}", (Ask(((name, word),)),), source) for word in _words(values, source))
    if key == "leave-idle":
        return tuple(_idle(word, source) for word in _words(values, source))
    found = numbers(values, source)
    exact = [int(x) if key == "survive" and x.is_integer() else x for x in found]
    pairs = zip(_labels(found), exact, strict=True)
    return tuple(Scenario(f"{key} {label}", (Ask(((name, value),)),), source) for label, value in pairs)


def _idle(word: str, source: str) -> Scenario:
    if word not in ("true", "false"):
        raise InputError(f"{source}: must be true or false, got {word!r}.")
    return Scenario(f"leave-idle {word}", (Ask((("leave_idle", word == "true"),)),), source)


def numbers(text: str, source: str) -> list[float]:
    """Return the numbers of "0.5..2/7" (equal steps, both ends) or "0.5,1,2".

    Raises:
        InputError: If it is neither, or the range makes no sense.
    """
    if ".." not in text:
        return [_number(word, source) for word in _words(text, source, "values")]
    ends, separator, steps = text.partition("/")
    first, last = (_number(end, source) for end in ends.split("..", maxsplit=1))
    if not separator or not steps.isdecimal() or not 2 <= int(steps[:9]) <= MOST_STEPS:
        got = repr(steps) if separator else "no /"
        raise InputError(f"{source}: a range must be A..B/N with N values from 2 to {MOST_STEPS}, got {got}.")
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
    """Return numbers as short as they can be told apart."""
    for form in (".4g", ".10g"):
        labels = [format(value, form) for value in values]
        if len(set(labels)) == len(set(values)):
            return labels
    return [repr(value) for value in values]


def _entry(where: str, entry: ScenarioEntry) -> Scenario:
    changes: list[Change] = [Drop(entry.drop)] if entry.drop else []
    changes += [Add(of, count) for of, count in entry.add.items()]
    if entry.devices or entry.links:
        changes.append(Describe(entry.devices, entry.links))
    source = f"{where} {entry.name!r}"
    for target, value in entry.set.items():
        name, _, key = target.rpartition(".")
        if not name and target != AGGREGATOR:
            raise InputError(f"{source}: set: must be NAME.KEY or {AGGREGATOR}, got {target!r}.")
        changes.append(Set(name, key, value))
    changes += [Scale(quantity, factor) for quantity, factor in entry.scale.items()]
    if entry.goal is not None and entry.goal.model_fields_set:
        changes.append(Ask.of(entry.goal))
    return Scenario(entry.name, tuple(changes), source)


def joined(parts: Iterable[Scenario]) -> Scenario:
    """Return a scenario with the changes of several."""
    several = list(parts)
    changes = tuple(change for part in several for change in part.changes)
    return Scenario(", ".join(part.name for part in several), changes, "; ".join(part.source for part in several))
