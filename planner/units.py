"""Numbers and names as text for people: in terminal tables, on the page, in plots and in messages.

Every report formats with these functions, so that a plan reads alike wherever it is shown. CSV and JSON output is data
and is not formatted here. A missing number, NaN, is shown as a dash.
"""

import math
import unicodedata
from typing import Literal

OBJECTIVE_NAMES = {
    "latency": "latency",
    "accuracy": "predicted accuracy",
    "energy": "energy",
    "devices": "devices",
}
"""Quantity that each objective optimises."""

_SIZE_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
_INVISIBLE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# Joiners are invisible too, but letters of some scripts and many emoji fall apart without them.
_JOINERS = "\u200c\u200d"
_MISSING = "-"


def visible(name: str) -> str:
    r"""Return a name with its invisible characters escaped, such as `\x1b` or `\u202e`.

    Control characters could steer a terminal, line breaks would break a table, and bidirectional marks would reorder
    the text around the name.
    """
    if name.isprintable():
        return name
    return "".join(_escape(c) if _is_invisible(c) else c for c in name)


def shorten(name: str, max_length: int = 18) -> str:
    """Return a visible name of at most `max_length` characters, with the middle of a longer one left out."""
    name = visible(name)
    if len(name) <= max_length:
        return name
    tail = (max_length - 1) // 3
    return f"{name[: max_length - 1 - tail]}…{name[-tail:]}"


def count_noun(number: float, noun: str) -> str:
    """Return a number with its noun: "1 device", "2 devices", "3 classes"."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number:,.10g} {noun if number == 1 else plural}"


def format_number(value: float, digits: int = 4) -> str:
    """Return a number rounded to significant digits behind the point, without an exponent or trailing zeros."""
    if _is_missing(value):
        return _MISSING
    # Taken after rounding: 9.996 has one digit before the point, its rounded value 10.00 has two.
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])
    text = f"{value:,.{max(0, digits - 1 - exponent)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def format_time_us(time_us: float, *, signed: bool = False) -> str:
    """Return a time in milliseconds with its unit, rounded as by `format_ms`.

    Args:
        time_us: Time, or change of a time [us].
        signed: Show a plus before a positive change too.
    """
    return _MISSING if _is_missing(time_us) else f"{format_ms(time_us, signed=signed)} ms"


def format_ms(time_us: float, decimals: int | None = None, *, signed: bool = False) -> str:
    """Return a time as a bare number of milliseconds, for columns and axes that name the unit.

    Args:
        time_us: Time, or change of a time [us].
        decimals: Digits after the point, for aligned columns. Unless given: none from 100 ms on, one from 1 ms on,
            two significant digits below.
        signed: Show a plus before a positive change too.
    """
    if _is_missing(time_us):
        return _MISSING
    value = time_us / 1000
    sign = "+" if signed else ""
    if decimals is not None:
        return f"{value:{sign},.{decimals}f}"
    # The limits are where rounding reaches the next form: 99.96 ms is 100, not 100.0.
    if abs(value) >= 99.95:
        return f"{value:{sign},.0f}"
    if abs(value) >= 0.995:
        return f"{value:{sign}.1f}"
    return f"{sign if value > 0 else ''}{format_number(value, 2)}"


def decimals_of_ms(shortest_us: float) -> int:
    """Return the decimals of milliseconds that show three digits of the shortest time [us] in a column."""
    return 1 if shortest_us >= 10_000 else 2 if shortest_us >= 1000 else 3


def format_bytes(num_bytes: float, rounding: Literal["nearest", "up", "down"] = "nearest") -> str:
    """Return a size with its binary unit.

    Rounded to the nearest, a size has one decimal below ten of its unit and none from there on: "500 bytes",
    "1.5 KiB", "241 KiB". Rounded up or down, it is in tenths of a KiB or of a MiB: "187.9 KiB", "120 KiB".

    Args:
        num_bytes: Size [bytes].
        rounding: "up" for a demand and "down" for a supply, so that the size that is shown is safe.
    """
    if _is_missing(num_bytes):
        return _MISSING
    if rounding != "nearest":
        return _format_tenths(math.ceil(num_bytes) if rounding == "up" else math.floor(num_bytes), rounding == "up")
    power, value = 0, float(num_bytes)
    # By the rounded value: 1023.7 KiB are "1.0 MiB", not "1,024 KiB".
    while round(value) >= 1024 and power < len(_SIZE_UNITS) - 1:
        power, value = power + 1, value / 1024
    if power == 0:
        return count_noun(round(value), "byte")
    return f"{value:,.{1 if value < 9.95 else 0}f} {_SIZE_UNITS[power]}"


def format_share(share: float, decimals: int | None = None) -> str:
    """Return a share in percent.

    Args:
        share: Part of a whole; 1 is all of it.
        decimals: Digits after the point. Unless given: none from 10 % on, one below.
    """
    if _is_missing(share):
        return _MISSING
    return f"{share:.{(0 if abs(share) >= 0.0995 else 1) if decimals is None else decimals}%}"


def format_points(share: float, *, signed: bool = False) -> str:
    """Return a difference of shares in percentage points: "2.4 points", "-10.0 points"."""
    if _is_missing(share):
        return _MISSING
    # Rounded first: what is nearly nothing has no sign.
    points = round(100 * share, 1) or 0.0
    return f"{points:{'+' if signed else ''}.1f} points"


def format_macs(macs: float) -> str:
    """Return multiply-accumulates in millions or billions: "0.24 M", "17.58 G"; a few of them as a plain number."""
    if _is_missing(macs):
        return _MISSING
    if macs < 10_000:
        return f"{macs:,.0f}"
    return f"{macs / 1e9:,.2f} G" if macs >= 1e9 else f"{macs / 1e6:.2f} M"


def format_energy_mj(energy_mj: float) -> str:
    """Return an energy in millijoules with its unit, to four significant digits."""
    return _MISSING if _is_missing(energy_mj) else f"{format_number(energy_mj)} mJ"


def format_objective(objective: str, value: float) -> str:
    """Return a value of an objective, one of `OBJECTIVE_NAMES`, with its unit if it has one."""
    if objective == "latency":
        return format_time_us(value)
    if objective == "energy":
        return format_energy_mj(value)
    return format_share(value, 1) if objective == "accuracy" else f"{value:,.0f}"


def format_against(against: str, value: float) -> str:
    """Return a value of what a Pareto front is against: accuracy, memory [bytes] or energy [mJ]."""
    if against == "accuracy":
        return format_share(value, 1)
    return format_bytes(value) if against == "memory" else format_energy_mj(value)


def _format_tenths(num_bytes: int, up: bool) -> str:
    # No larger unit: a tenth of a GiB would be too coarse for advice on memory.
    unit, factor = ("MiB", 2**20) if num_bytes >= 2**20 else ("KiB", 2**10)
    tenths = -(-num_bytes * 10 // factor) if up else num_bytes * 10 // factor
    if num_bytes and not tenths:
        return count_noun(num_bytes, "byte")
    return f"{tenths / 10:.1f}".removesuffix(".0") + f" {unit}"


def _is_missing(value: float) -> bool:
    return not math.isfinite(value)


def _is_invisible(character: str) -> bool:
    return unicodedata.category(character) in _INVISIBLE_CATEGORIES and character not in _JOINERS


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()
