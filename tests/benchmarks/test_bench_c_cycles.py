"""Kinds of instructions and their cycles, as the cards of microcontrollers take them: by hand."""

import pytest

from benchmarks.c.cores import CORES
from benchmarks.c.cycles import counted, cycles, kind_of, kinds_by_address

DISASSEMBLY = """
00000100 <vit_product>:
     100:\tvldr\ts0, [r0]
     104:\tvfma.f32\ts1, s0, s2
     108:\tbne.n\t100 <vit_product>

00000200 <run>:
     200:\tbl\t100 <vit_product>
"""
TRACE = ["Trace 0: 0x7f0 [00800400/00000100/00000130/ff000201] vit_product", "0x0 [00800400/00000104/0/0]"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("vfma.f32", "multiply-accumulate"),
        ("vfms.f32", "multiply-accumulate"),
        ("vdiv.f32", "division"),
        ("vldmia", "load of floats"),
        ("vmul.f32", "other arithmetic of floats"),
        ("vmov", "other arithmetic of floats"),
        ("ldrsb.w", "load"),
        ("vstr", "store"),
        ("strd", "store"),
        ("bne.n", "branch"),
        ("b.n", "branch"),
        ("cbz", "branch"),
        ("bic.w", "other"),
        ("bfi", "other"),
        ("lsls", "other"),
        ("vmrs", "other"),
    ],
)
def test_instructions_have_a_kind(name: str, kind: str) -> None:
    """By their names, with and without a width behind them."""
    assert kind_of(name) == kind


def test_what_the_benchmark_itself_executes_is_left_out() -> None:
    """Of a trace of seven instructions, three times two are the engine's."""
    kinds = kinds_by_address(DISASSEMBLY.splitlines())
    assert set(kinds) == {0x100, 0x104, 0x108}
    assert counted([*TRACE * 3, "0x0 [0/00000200/0/0]"], kinds) == {"load of floats": 3, "multiply-accumulate": 3}


@pytest.mark.parametrize(
    ("core", "fewest", "most"),
    [
        # Two loads and a store of 1 or 2 each, a branch of 2 or 4.
        ("Cortex-M4F", 3 + 14 + 1 + 1 + 1 + 2 + 1, 3 + 14 + 2 + 2 + 2 + 4 + 1),
        # Seven instructions, two at once; or one at once, and two loads.
        ("Cortex-M7", 3.5, 9),
        ("Cortex-M55", 7, 9),
    ],
)
def test_cycles_are_those_of_each_kind(core: str, fewest: float, most: float) -> None:
    """One instruction of each of seven kinds, on three cores."""
    kinds = ("multiply-accumulate", "division", "load of floats", "load", "store", "branch", "other")
    found = cycles(next(c for c in CORES if c.name == core), dict.fromkeys(kinds, 1))
    assert (found.fewest, found.most) == (fewest, most)
