"""Generated C on other processors, emulated by qemu: wherever their compilers are installed."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.c.cores import COMPILER, CORES, EMULATOR, Core, Firmware, measure
from planner.network import counts
from planner.network.vit import Shape
from planner.rules.c_memory import C_CODE_BYTES, C_STACK_BYTES, c_weight_bytes
from planner.runtime.c.generate import c_sizes, model_files
from planner.schema import Precision
from tests.helpers.c_models import STRICT, ByteOrder, assert_equal_features, build, make_case, random_case, run

CASES = [
    *(random_case(seed) for seed in range(20, 24)),
    make_case(Shape(16, 8, 3, 2, 8, 4, (1,), (9,), stem_channels=(4, 7)), "int8", "float32"),
    make_case(Shape((18, 16), 2, 1, 2, 16, 8, (1, 2), (24, 8))),
]
# A sub-model such as a fleet of microcontrollers gets.
SMALL = Shape(8, 2, 1, 10, 24, 16, (1, 1, 0, 1), (8, 16, 8, 8))
CONSTANTS = {p: c_weight_bytes(c_sizes(SMALL), SMALL.num_heads, SMALL.hidden_dim, p) for p in ("float32", "int8")}
# One of them with every change, the others where there is time.
WITH_FPU = [
    pytest.param(core, id=core.name, marks=[] if core.name == "Cortex-M7" else [pytest.mark.slow])
    for core in CORES
    if core.name != "Cortex-M3"
]


def needs(*programs: str) -> None:
    """Skip the test without these programs, but never where changes are judged."""
    missing = [name for name in programs if shutil.which(name) is None]
    if missing and not os.environ.get("CI"):
        pytest.skip(f"{' and '.join(missing)} must be installed")


@pytest.mark.parametrize(
    ("compiler", "flags", "emulator", "byte_order"),
    [
        ("aarch64-linux-gnu-gcc", (), "qemu-aarch64", "<"),
        ("arm-linux-gnueabi-gcc", ("-march=armv6", "-mfpu=vfp", "-mfloat-abi=softfp", "-marm"), "qemu-arm", "<"),
        ("arm-linux-gnueabi-gcc", ("-march=armv7-a", "-mfpu=neon", "-mfloat-abi=softfp"), "qemu-arm", "<"),
        ("s390x-linux-gnu-gcc", (), "qemu-s390x", ">"),
    ],
    ids=["aarch64", "armv6", "armv7, NEON", "s390x, big-endian"],
)
def test_linux(compiler: str, flags: Sequence[str], emulator: str, byte_order: ByteOrder, tmp_path: Path) -> None:
    """Features are torch's on ARM, with 64 bits, NEON or neither, and where the most significant byte is first."""
    needs(compiler, emulator)
    program = build(CASES, tmp_path, [compiler, "-std=gnu99", "-O1", "-static", *STRICT, *flags])
    assert_equal_features(CASES, run(CASES, [emulator, program], byte_order), tolerance=1e-5)


def measured(core: Core, precision: Precision, folder: Path) -> Firmware:
    """Return measurements of the small sub-model, whose features must be torch's, within the planned memory."""
    needs(COMPILER, EMULATOR)
    case = make_case(SMALL, precision)
    files = model_files(case.network, case.image, precision)
    seen = measure(core, files, case.images, case.expected().astype(np.float32), folder)
    assert seen.error <= 1e-5
    assert seen.constants_bytes == pytest.approx(CONSTANTS[precision], abs=16)
    assert seen.stack_bytes <= C_STACK_BYTES
    return seen


@pytest.mark.parametrize(("precision", "most"), [("float32", 4.0), ("int8", 5.0)])
@pytest.mark.parametrize("core", WITH_FPU)
def test_microcontrollers(core: Core, precision: Precision, most: float, tmp_path: Path) -> None:
    """Flash is within 5 % of the plan's, and a MAC takes at most 4 instructions, in int8 5."""
    seen = measured(core, precision, tmp_path)
    assert seen.constants_bytes + seen.code_bytes == pytest.approx(CONSTANTS[precision] + C_CODE_BYTES, rel=0.05)
    # The head layer is not on the device.
    num_macs = counts.exact(SMALL).macs - SMALL.embed_dim * SMALL.num_classes
    assert seen.instructions <= most * num_macs


@pytest.mark.slow
def test_without_an_fpu(tmp_path: Path) -> None:
    """Software for floats changes no feature."""
    measured(next(core for core in CORES if core.name == "Cortex-M3"), "float32", tmp_path)
