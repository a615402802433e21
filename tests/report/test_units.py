"""Formatters of numbers and names, each with a table of values."""

import math
from collections.abc import Callable

import pytest

from planner import units

KIB, MIB, GIB = 2**10, 2**20, 2**30


@pytest.mark.parametrize(
    ("time_us", "text"),
    [
        (0, "0 ms"),
        (0.4, "0.0004 ms"),
        (7, "0.007 ms"),
        (420, "0.42 ms"),
        (994, "0.99 ms"),
        # Each next form begins where the one before would round up to it.
        (995, "1.0 ms"),
        (1000, "1.0 ms"),
        (6499, "6.5 ms"),
        (89_149, "89.1 ms"),
        (99_949, "99.9 ms"),
        (99_951, "100 ms"),
        (250_000, "250 ms"),
        (1e9, "1,000,000 ms"),
        (math.nan, "-"),
        (math.inf, "-"),
    ],
)
def test_times(time_us: float, text: str) -> None:
    """Two digits below 1 ms, one decimal below 100 ms, none from there on."""
    assert units.format_time_us(time_us) == text
    assert units.format_ms(time_us) == text.removesuffix(" ms")


def test_changes_of_times_have_a_sign() -> None:
    """No change has none."""
    texts = [units.format_time_us(us, signed=True) for us in (-250_000, -2000, -540, 0, 3, 2500)]
    assert texts == ["-250 ms", "-2.0 ms", "-0.54 ms", "0 ms", "+0.003 ms", "+2.5 ms"]


def test_times_in_a_column_are_aligned() -> None:
    """Three digits of the shortest, as many decimals for the others."""
    assert [units.decimals_of_ms(us) for us in (12_345, 1234, 123)] == [1, 2, 3]
    assert [units.format_ms(us, 2) for us in (1234, 12_345, 1_234_567)] == ["1.23", "12.35", "1,234.57"]
    assert [units.format_ms(us, 3, signed=True) for us in (540, -1, math.nan)] == ["+0.540", "-0.001", "-"]


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 bytes"),
        (0.4, "0 bytes"),
        (1, "1 byte"),
        (500, "500 bytes"),
        (1023, "1,023 bytes"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (10 * KIB - 60, "9.9 KiB"),
        (10 * KIB - 40, "10 KiB"),
        (192.2 * KIB, "192 KiB"),
        (1023.7 * KIB, "1.0 MiB"),
        (2 * MIB, "2.0 MiB"),
        (26 * MIB, "26 MiB"),
        (2 * GIB, "2.0 GiB"),
        (3 * 2**40, "3.0 TiB"),
        (2**60, "1,048,576 TiB"),
        (math.nan, "-"),
    ],
)
def test_sizes(num_bytes: float, text: str) -> None:
    """In the largest unit of which there is one, with a decimal below ten; a few bytes are never none."""
    assert units.format_bytes(num_bytes) == text


@pytest.mark.parametrize(
    ("num_bytes", "up", "down"),
    [
        (0, "0 KiB", "0 KiB"),
        (40, "0.1 KiB", "40 bytes"),
        (500, "0.5 KiB", "0.4 KiB"),
        (120 * KIB, "120 KiB", "120 KiB"),
        (192_341, "187.9 KiB", "187.8 KiB"),
        (830_800, "811.4 KiB", "811.3 KiB"),
        (MIB, "1 MiB", "1 MiB"),
        (MIB + 1, "1.1 MiB", "1 MiB"),
        (2 * GIB + 1, "2048.1 MiB", "2048 MiB"),
        (math.nan, "-", "-"),
    ],
)
def test_sizes_that_must_suffice(num_bytes: float, up: str, down: str) -> None:
    """A demand is rounded up and a supply down, to tenths."""
    assert units.format_bytes(num_bytes, "up") == up
    assert units.format_bytes(num_bytes, "down") == down


@pytest.mark.parametrize(
    ("function", "values", "texts"),
    [
        (units.format_share, (0, 0.0789, 0.0994, 0.0996, 0.456, 1, math.nan), "0.0% 7.9% 9.9% 10% 46% 100% -"),
        (lambda share: units.format_share(share, 1), (0, 0.9718, 1, math.nan), "0.0% 97.2% 100.0% -"),
        (units.format_number, (0, 0.00004, 3.4472, 9.99996, 12_345.6, math.nan), "0 0.00004 3.447 10 12,346 -"),
        (units.format_macs, (0, 1690, 10_000, 218_408, 17.58e9, math.nan), "0|1,690|0.01 M|0.22 M|17.58 G|-"),
        (units.format_points, (0.0238, -0.1, -0.0004, math.nan), "2.4 points|-10.0 points|0.0 points|-"),
        (units.format_energy_mj, (0, 3.4472, 16.1723, math.nan), "0 mJ|3.447 mJ|16.17 mJ|-"),
    ],
)
def test_other_numbers(function: Callable[[float], str], values: tuple[float, ...], texts: str) -> None:
    """Shares, counts of operations, energies: never an exponent, a dash for what is missing."""
    assert [function(value) for value in values] == texts.split("|" if "|" in texts else " ")


def test_numbers_agree_with_their_nouns() -> None:
    """One is singular; thousands are grouped; what ends in s gets another syllable."""
    assert [units.count_noun(n, "class") for n in (0, 1, 2)] == ["0 classes", "1 class", "2 classes"]
    assert [units.count_noun(n, "point") for n in (0.5, 1.0, 12_345)] == ["0.5 points", "1 point", "12,345 points"]


def test_every_objective_has_its_unit() -> None:
    """Latency in ms, energy in mJ, accuracy in percent; devices are a bare number."""
    values = {"latency": 6499, "energy": 3.4472, "accuracy": 0.9176, "devices": 3}
    texts = [units.format_objective(name, values[name]) for name in units.OBJECTIVE_NAMES]
    assert dict(zip(units.OBJECTIVE_NAMES, texts, strict=True)) == {
        "latency": "6.5 ms",
        "energy": "3.447 mJ",
        "accuracy": "91.8%",
        "devices": "3",
    }


# --- names


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("raspberry-pi", "raspberry-pi"),
        ("🦔 ß 中 [b]", "🦔 ß 中 [b]"),
        # Ideographic and no-break spaces are letters' company, and joiners hold an emoji together.
        ("中\u3000文\xa0x", "中\u3000文\xa0x"),
        ("👨\u200d👩", "👨\u200d👩"),
        ("\x1b[31mred\n\ttab", r"\x1b[31mred\n\ttab"),
        ("a\u202eb\u2066c\u200f", r"a\u202eb\u2066c\u200f"),
        ("a\u200bb\ufeff\u2028", r"a\u200bb\ufeff\u2028"),
        ("\ud800", r"\ud800"),
    ],
)
def test_invisible_characters_are_escaped(name: str, text: str) -> None:
    """Controls, bidirectional marks, zero widths and half characters are seen; all else stays as it is."""
    assert units.visible(name) == text
    assert units.visible(text) == text


def test_long_names_lose_their_middle() -> None:
    """18 characters are left of 200, both ends among them."""
    assert units.shorten("raspberry-pi") == "raspberry-pi"
    assert units.shorten("begin" + "x" * 190 + "final") == "beginxxxxxxx…final"
    assert len(units.shorten("y" * 200, 30)) == 30
    assert units.shorten("a\x1bb", 4) == r"a\…b"
