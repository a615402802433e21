"""Names and numbers as people read them: in pictures, on the page."""

import math
import re

# Control characters, and those that turn the direction of the text around them.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

_UNITS = ("bytes", "KiB", "MiB", "GiB")


def visible(name: str) -> str:
    """Return a name with every character that would change the text around it replaced by a sign of its own."""
    return _UNSEEN.sub("\ufffd", name)


def short(name: str, most: int = 18) -> str:
    """Return a name of at most this many characters, the middle of a long one left out."""
    name = visible(name)
    if len(name) <= most:
        return name
    tail = (most - 1) // 3
    return f"{name[: most - 1 - tail]}…{name[-tail:]}"


def ms(us: float) -> str:
    """Return a time in milliseconds with its unit: three digits where it is short."""
    value = us / 1000
    return f"{value:,.0f} ms" if abs(value) >= 100 else f"{value:.1f} ms" if abs(value) >= 1 else f"{value:.2g} ms"


def size(num_bytes: float) -> str:
    """Return a size in the unit that leaves one to four digits before the point; a dash for none."""
    if math.isnan(num_bytes):
        return "-"
    power = next(p for p, unit in enumerate(_UNITS) if num_bytes < 1024 ** (p + 1) or unit == _UNITS[-1])
    shown = num_bytes / 1024**power
    return f"{shown:,.0f} {_UNITS[power]}" if shown >= 10 or power == 0 else f"{shown:.1f} {_UNITS[power]}"


def percent(share: float) -> str:
    """Return a share in percent; a dash for none."""
    return "-" if math.isnan(share) else f"{share:.0%}" if abs(share) >= 0.1 else f"{share:.1%}"


def counted(number: int, noun: str) -> str:
    """Return "1 device", "2 devices", "3 classes"."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"
