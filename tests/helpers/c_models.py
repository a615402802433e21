"""Generated sub-models compiled together into one program that runs them all, and networks to generate."""

import math
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from planner.errors import InputError
from planner.network.vit import Shape, VisionTransformer
from planner.runtime.c.files import engine_files
from planner.runtime.c.generate import model_files
from planner.runtime.c.host import find_compiler
from planner.schema import ImageInput, InputDtype, Precision
from tests.helpers.plain_vit import random_model

NUM_IMAGES = 2
ByteOrder = Literal["<", ">"]
STRICT = ("-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")

_ACTIVATIONS = ("gelu", "gelu_tanh", "quick_gelu", "relu", "silu", "sigmoid")
_WRAPPER = """\
#define model model_{i}
#define model_infer model_infer_{i}
#include "{i}/model.c"
#include "table.h"
const entry entry_{i} = {{MODEL_INPUT_BYTES, MODEL_NUM_FEATURES, MODEL_ARENA_BYTES, model_infer}};
"""
_TABLE = """\
#include <stddef.h>
#define NUM_ENTRIES {count}
typedef struct {{
    size_t input_bytes, num_features, arena_bytes;
    void (*infer)(const void *image, float *features, void *arena);
}} entry;
{declarations}
extern const entry *const entries[NUM_ENTRIES];
"""


@dataclass(frozen=True)
class Case:
    """Sub-model to generate, with images to run it on."""

    network: VisionTransformer
    image: ImageInput
    precision: Precision
    images: NDArray[Any]  # (NUM_IMAGES, ch, H, W), as sent

    def expected(self) -> NDArray[np.float64]:
        """Return the features (B, E) of torch in float64; of int8, those of the weights that its steps reach."""
        p = self.image.preprocessing
        mean, std = (torch.tensor(values, dtype=torch.float64).view(-1, 1, 1) for values in (p.mean, p.std))
        pixels = (torch.from_numpy(self.images).double() * p.scale - mean) / std
        network = VisionTransformer(self.network.shape).double().eval()
        network.load_state_dict(self.network.state_dict())
        if self.precision == "int8":
            round_to_int8(network)
        with torch.no_grad():
            features: NDArray[np.float64] = network.features(pixels).numpy()
        return features


@dataclass(frozen=True)
class Answer:
    """Features (B, E) that C gave for a case, and the part of its arena that was written [bytes]."""

    features: NDArray[np.float32]
    used_bytes: int


def round_to_int8(network: VisionTransformer) -> None:
    """Round each matrix and filter to 255 steps for each output, in place; the head layers do not matter."""
    for name, p in network.named_parameters():
        if name.endswith("weight") and p.ndim > 1:
            # In float32, so that what lies between two steps falls to the same side.
            values = p.data.float()
            step = values.abs().flatten(1).amax(1) / 127
            step = torch.where(step > 0, step, 1).view(-1, *[1] * (p.ndim - 1))
            p.data = (values / step).round().to(p.dtype) * step


def make_case(shape: Shape, precision: Precision = "float32", dtype: InputDtype = "uint8", seed: int = 0) -> Case:
    """Return a case with random weights and images."""
    rng = np.random.default_rng(seed)
    channels = shape.in_channels
    image = ImageInput.model_validate(
        {
            "shape": (channels, *shape.image_sides),
            "dtype": dtype,
            "preprocessing": {
                "scale": 1 / 255,
                "mean": tuple(rng.uniform(0.2, 0.6, channels).tolist()),
                "std": tuple(rng.uniform(0.2, 0.6, channels).tolist()),
            },
        }
    )
    pixels = rng.integers(0, 256, (NUM_IMAGES, *image.shape))
    images = pixels.astype(np.uint8) if dtype == "uint8" else (pixels - rng.random(pixels.shape)).astype(np.float32)
    return Case(random_model(shape, seed), image, precision, images)


def random_case(seed: int) -> Case:
    """Return a case whose every size and option is random; many are degenerate."""
    rng = np.random.default_rng(seed)

    def drawn(*values: Any) -> Any:
        return values[rng.integers(len(values))]

    depth, num_stem, stride, max_pool = (
        int(rng.integers(1, 4)),
        int(drawn(0, 0, 0, 1, 2)),
        drawn(1, 2),
        drawn(False, True),
    )
    reduction = (stride * (1 + max_pool)) ** num_stem
    height, width, rows, columns = (int(number) for number in rng.integers(1, [4, 4, 5, 5]))
    patch = (height * reduction, width * reduction)
    pooling = drawn("class_token", "mean", "sequence")
    shape = Shape(
        image_size=(patch[0] * rows, patch[1] * columns),
        patch_size=patch,
        in_channels=int(drawn(1, 3)),
        num_classes=2,
        embed_dim=int(rng.integers(3, 70)),
        head_dim=int(rng.integers(1, 40)),
        num_heads=tuple(int(h) for h in rng.integers(0, 4, depth)),
        hidden_dim=tuple(int(c) for c in rng.integers(0, 80, depth) * rng.integers(0, 2, depth)),
        stem_channels=tuple(int(c) for c in rng.integers(1, 9, num_stem)),
        num_registers=int(drawn(0, 0, 3)),
        pooling=pooling,
        norm_between_halves=bool(drawn(True, False)),
        stem_kernel=int(drawn(3, 5, 7)),
        stem_stride=int(stride),
        stem_max_pool=bool(max_pool),
        class_token=pooling == "class_token" or bool(drawn(True, False)),
        distilled=pooling == "class_token" and bool(drawn(True, False)),
        norm_after_pooling=pooling == "mean" and bool(drawn(True, False)),
        norm_before_blocks=bool(drawn(True, False)),
        activation=drawn(*_ACTIVATIONS),
        layer_norm_eps=float(drawn(1e-6, 1e-5)),
        gated_mlp=bool(drawn(True, False)),
        qk_norm=drawn(None, None, "layer_norm", "rms_norm"),
    )
    return make_case(shape, drawn("float32", "int8"), drawn("uint8", "float32"), seed)


def c_compiler() -> str:
    """Return this machine's C compiler; without one, skip the test, but never where changes are judged."""
    try:
        return find_compiler()
    except InputError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


def build(cases: Sequence[Case], folder: Path, compiler: Sequence[str]) -> Path:
    """Write all sub-models into a folder and compile one program of them by one call of a compiler with its flags."""
    folder.mkdir(parents=True, exist_ok=True)
    files = dict(engine_files())
    for i, case in enumerate(cases):
        files |= {f"{i}/{name}": text for name, text in model_files(case.network, case.image, case.precision).items()}
        # The header stands beside each model.c, which includes its own.
        files[f"model_{i}.c"] = _WRAPPER.format(i=i)
    names = [f"entry_{i}" for i in range(len(cases))]
    declarations = "\n".join(f"extern const entry {name};" for name in names)
    files["table.h"] = _TABLE.format(count=len(cases), declarations=declarations)
    addresses = ", ".join(f"&{name}" for name in names)
    files["table.c"] = f'#include "table.h"\nconst entry *const entries[] = {{{addresses}}};\n'
    files["c_models.c"] = (Path(__file__).parent / "c_models.c").read_text()
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    program = folder / "program"
    sources = [name for name in files if name.endswith(".c") and "/" not in name and name != "fusion.c"]
    subprocess.run([*compiler, "-I.", "-o", program.name, *sources, "-lm"], cwd=folder, check=True)
    return program


def run(cases: Sequence[Case], command: Sequence[str | Path], byte_order: ByteOrder = "<") -> list[Answer]:
    """Run a program of cases on their images.

    Args:
        cases: Cases that the program was built of.
        command: Program, behind an emulator if it needs one.
        byte_order: "<" or ">", the emulated machine's.
    """
    sent = b"".join(c.images.astype(c.images.dtype.newbyteorder(byte_order)).tobytes() for c in cases)
    done = subprocess.run([*command, str(NUM_IMAGES)], input=sent, stdout=subprocess.PIPE, check=True)
    answers, offset = [], 0
    for case in cases:
        shape = (NUM_IMAGES, case.network.shape.embed_dim)
        features = np.frombuffer(done.stdout, f"{byte_order}f4", math.prod(shape), offset).reshape(shape)
        offset += features.nbytes
        used = int(np.frombuffer(done.stdout, f"{byte_order}u4", 1, offset)[0])
        answers.append(Answer(features.astype(np.float32), used))
        offset += 4
    assert offset == len(done.stdout)
    return answers


def assert_equal_features(cases: Sequence[Case], answers: Sequence[Answer], tolerance: float = 1e-4) -> None:
    """Assert that features are torch's, to a share of the largest."""
    for i, (case, answer) in enumerate(zip(cases, answers, strict=True)):
        expected = case.expected()
        error = float(np.abs(answer.features - expected).max() / np.abs(expected).max())
        assert error <= tolerance, (i, case.precision, error, case.network.shape)
