"""Cortex-M cores as qemu has them: firmware of a sub-model is built, run, and its instructions counted."""

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.runtime.c.files import engine_files

COMPILER, SIZE, DISASSEMBLER = "arm-none-eabi-gcc", "arm-none-eabi-size", "arm-none-eabi-objdump"
EMULATOR = "qemu-system-arm"
FLAGS = ("-std=gnu99", "-O2", "-mthumb", "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections")
_LINKING = ("-nostartfiles", "--specs=nano.specs", "--specs=nosys.specs", "-Wl,--no-warn-rwx-segments")
# Sections of an object that are in flash.
_FLASH = (".text", ".rodata", ".vectors")
_HERE = Path(__file__).parent
_TIMEOUT_S = 120


@dataclass(frozen=True)
class Core:
    """Processor core, the board of qemu that has it, and where code and RAM are on that board."""

    name: str
    machine: str
    flags: tuple[str, ...]
    code: int = 0x00000000
    ram: int = 0x20000000


_HARD = "-mfloat-abi=hard"
CORES = (
    # Without an FPU: every float is software.
    Core("Cortex-M3", "mps2-an385", ("-mcpu=cortex-m3", "-mfloat-abi=soft")),
    Core("Cortex-M4F", "mps2-an386", ("-mcpu=cortex-m4", _HARD, "-mfpu=fpv4-sp-d16")),
    Core("Cortex-M7", "mps2-an500", ("-mcpu=cortex-m7", _HARD, "-mfpu=fpv5-d16")),
    Core("Cortex-M33", "mps2-an505", ("-mcpu=cortex-m33", _HARD, "-mfpu=fpv5-sp-d16"), 0x10000000, 0x38000000),
    Core("Cortex-M55", "mps3-an547", ("-mcpu=cortex-m55", _HARD), 0x10000000, 0x31000000),
)


@dataclass(frozen=True)
class Firmware:
    """Measurements of a sub-model's firmware.

    Attributes:
        instructions: Instructions of one image.
        error: Largest difference of a feature from what was expected, relative to the largest feature.
        constants_bytes: Constants of model.c in flash.
        code_bytes: Code of the engine, and what it needs of the C library.
        stack_bytes: Stack of the engine at its deepest.
    """

    instructions: int
    error: float
    constants_bytes: int
    code_bytes: int
    stack_bytes: int


def measure(
    core: Core, files: Mapping[str, str], images: NDArray[Any], expected: NDArray[np.float32], folder: Path
) -> Firmware:
    """Build a sub-model's firmware in a folder and run it under qemu.

    Args:
        core: Core to build for.
        files: Text of model.h and model.c by their names.
        images: Images as they are sent, (B, ch, H, W) of uint8.
        expected: Features (B, E) of these images.
        folder: Folder for all that is built.
    """
    texts = {**engine_files(), **files, "test_images.h": _test_images(images, expected)}
    _write(texts, folder)
    _build(core, ("kernels.c", "vit.c", "model.c", "firmware.c"), (), folder)
    printed = _emulate(core, folder)
    values = {name: int(value) for name, value in re.findall(r"(\w+) (\d+)", printed)}
    constants = _section_bytes("model.o", ".rodata", folder)
    own = sum(_section_bytes(f"{name}.o", section, folder) for name in ("firmware", "board") for section in _FLASH)
    code = _section_bytes("firmware.elf", ".text", folder) - constants - own
    return Firmware(
        instructions=round(values["ticks"] * values["loop_instructions"] / values["loop_ticks"]),
        error=values["error_e9"] / 1e9,
        constants_bytes=constants,
        code_bytes=code,
        stack_bytes=values["stack"] - values["stack_before"],
    )


def time_probes(core: Core, folder: Path, defines: Sequence[str] = ()) -> tuple[str, int]:
    """Build a probe folder's networks as firmware and run it under qemu.

    Args:
        core: Core to build for.
        folder: Probe folder in C, to which what is built is added.
        defines: Settings of probe.h, such as `PROBE_ROUNDS=1`.

    Returns:
        The latency.json that it printed, and its flash beside start-up and output [bytes].
    """
    _write({}, folder)
    sources = ("kernels.c", "vit.c", "networks.c", "weights.S", "probe.c", "probe_firmware.c")
    _build(core, sources, [f"-D{define}" for define in defines], folder)
    own = sum(
        _section_bytes(f"{name}.o", section, folder) for name in ("probe_firmware", "board") for section in _FLASH
    )
    return _emulate(core, folder), _section_bytes("firmware.elf", ".text", folder) - own


def _write(texts: Mapping[str, str], folder: Path) -> None:
    """Write files, and those that all firmware has, into a folder."""
    own = {path.name: path.read_text() for path in _HERE.iterdir() if path.suffix in (".c", ".h", ".ld")}
    for name, text in {**texts, **own}.items():
        (folder / name).write_text(text)


def _build(core: Core, sources: Sequence[str], flags: Sequence[str], folder: Path) -> None:
    """Compile sources with the board's to objects of the same names, and link firmware.elf."""
    sources = (*sources, "board.c")
    objects = [f"{Path(source).stem}.o" for source in sources]
    compiled = (COMPILER, *FLAGS, *core.flags, *flags)
    for source, name in zip(sources, objects, strict=True):
        _call([*compiled, "-c", source, "-o", name], folder)
    places = (f"-Wl,--defsym=CODE={core.code},--defsym=RAM={core.ram}", "-Wl,-T,firmware.ld")
    _call([*compiled, *_LINKING, *places, *objects, "-lm", "-o", "firmware.elf"], folder)


def emulation(core: Core) -> tuple[str, ...]:
    """Return the command that runs firmware.elf in the folder that holds it."""
    machine = (EMULATOR, "-M", core.machine, "-nographic", "-semihosting-config", "enable=on,target=native")
    return (*machine, "-icount", "shift=0", "-kernel", "firmware.elf")


def _emulate(core: Core, folder: Path) -> str:
    """Run firmware.elf, and return what it printed."""
    return _call(emulation(core), folder)


def _test_images(images: NDArray[Any], expected: NDArray[np.float32]) -> str:
    count, num_features = expected.shape
    pixels = ", ".join(map(str, images.ravel().tolist()))
    features = ", ".join(f"{value:.8e}f" for value in expected.ravel().tolist())
    return (
        f"#define NUM_IMAGES {count}\n"
        f"static const unsigned char images[{count}][{images[0].size}] = {{{pixels}}};\n"
        f"static const float expected[{count}][{num_features}] = {{{features}}};\n"
    )


def _section_bytes(file: str, prefix: str, folder: Path) -> int:
    """Return the bytes of all sections of a file whose names begin so."""
    listed = _call([SIZE, "-A", file], folder)
    return sum(int(size) for size in re.findall(rf"^{re.escape(prefix)}\S* +(\d+)", listed, re.MULTILINE))


def _call(command: Sequence[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:2])}: {(done.stderr or done.stdout).strip()[-2000:]}")
    # Semihosting prints to the error stream of some versions of qemu.
    return done.stdout + done.stderr
