"""Cycles for each MAC: instructions of each kind, as qemu ran them, times the cycles that are documented for them.

Sources of the cycles:
    Cortex-M4: Technical Reference Manual (Arm DDI 0439), tables 3-1 and 7-1: VFMA 3 cycles, VDIV and VSQRT 14, other
    arithmetic 1; a load or store 2, and 1 behind another; a branch that is taken 1 and 1 to 3 to fill the pipeline.
    Cortex-M33: Arm states none; LLVM schedules it by the model of the Cortex-M4.
    Cortex-M7: Arm states none. By LLVM's model (ARMScheduleM7.td) it issues two instructions in a cycle, taken here as
    one of arithmetic or a load of floats beside one of integers; at worst one, and it waits a cycle for each load.
    Cortex-M55: Arm states none; taken as one instruction in a cycle, at worst a cycle more for each load.
All of them are without wait states of flash.
"""

import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.c.cores import DISASSEMBLER, Core, emulation

# Functions of the benchmark itself.
_NOT_OURS = frozenset({"run", "reset", "print", "print_text", "now", "ticks_since", "stack_bytes", "stop", "fault"})
_FUNCTION, _INSTRUCTION = re.compile(r"[0-9a-f]+ <(\S+)>:"), re.compile(r" *([0-9a-f]+):\t(\S+)")
_EXECUTED = re.compile(r"\[[0-9a-f]+/([0-9a-f]+)/")
KINDS = {
    "multiply-accumulate": re.compile(r"vfn?m[as]|vn?ml[as]"),
    "division": re.compile(r"vdiv|vsqrt"),
    "load of floats": re.compile(r"vldr|vldm|vpop"),
    "other arithmetic of floats": re.compile(r"v(?!str|stm|push|mrs)"),
    "load": re.compile(r"ldr|ldm|pop"),
    "store": re.compile(r"vstr|vstm|vpush|str|stm|push"),
    "branch": re.compile(r"b[lx]|b(\.|$)|b(eq|ne|cs|cc|hs|lo|mi|pl|hi|ls|ge|lt|gt|le)|cbn?z|tb[bh]|le$|dls|wls"),
}
"""Kinds of instructions by their names, the first that matches; all others are `other`."""


@dataclass(frozen=True)
class CycleRange:
    """Fewest and most cycles for each MAC."""

    fewest: float
    most: float

    @property
    def middle(self) -> float:
        """Cycles that a card states."""
        return (self.fewest + self.most) / 2


def kind_of(name: str) -> str:
    """Return the kind of an instruction, given its name in Thumb."""
    return next((kind for kind, pattern in KINDS.items() if pattern.match(name)), "other")


def instructions_of(core: Core, folder: Path) -> Counter[str]:
    """Run the firmware.elf of a folder, as `cores.measure` leaves it, and return its instructions by kind."""
    listed = subprocess.run(
        [DISASSEMBLER, "-d", "--no-show-raw-insn", "firmware.elf"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    kinds = kinds_by_address(listed.stdout.splitlines())
    command = [*emulation(core), "-singlestep", "-d", "exec,nochain", "-D", "/dev/stderr"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        return counted(process.stderr, kinds)


def kinds_by_address(disassembly: Iterable[str]) -> dict[int, str]:
    """Return the kind of each instruction of the engine by its address, from lines of a disassembly."""
    kinds, function = {}, ""
    for line in disassembly:
        if begun := _FUNCTION.match(line):
            function = begun[1]
        elif (found := _INSTRUCTION.match(line)) and function not in _NOT_OURS:
            kinds[int(found[1], 16)] = kind_of(found[2])
    return kinds


def counted(trace: Iterable[str], kinds: Mapping[int, str]) -> Counter[str]:
    """Return how many instructions of each kind were executed, from lines of qemu's log."""
    executed = Counter(int(found[1], 16) for line in trace if (found := _EXECUTED.search(line)))
    counts: Counter[str] = Counter()
    for address, count in executed.items():
        if address in kinds:
            counts[kinds[address]] += count
    return counts


def cycles(core: Core, counts: Mapping[str, float]) -> CycleRange:
    """Return the cycles of instructions on a core with an FPU, given how many there are of each kind for each MAC."""
    total, loads = sum(counts.values()), counts.get("load", 0) + counts.get("load of floats", 0)
    if core.name == "Cortex-M7":
        of_floats = sum(counts.get(kind, 0) for kind in KINDS if kind.startswith("multiply") or "floats" in kind)
        return CycleRange(max(of_floats, total / 2), total + loads)
    if core.name == "Cortex-M55":
        return CycleRange(total, total + loads)
    branches = counts.get("branch", 0)
    longer = 2 * counts.get("multiply-accumulate", 0) + 13 * counts.get("division", 0)
    return CycleRange(total + longer + branches, total + longer + 3 * branches + loads + counts.get("store", 0))


def shown(core: Core, counts: Mapping[str, float]) -> Iterator[str]:
    """Yield the cells of a table's row: instructions of each kind and all of them, and cycles, for each MAC."""
    yield from (f"{counts.get(kind, 0):.2f}" for kind in (*KINDS, "other"))
    found = cycles(core, counts)
    yield f"{sum(counts.values()):.2f}"
    yield f"{found.fewest:.1f} to {found.most:.1f}"
