"""Probes in C: the networks that are timed are torch's, and what boards print is a latency.json."""

import statistics
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks.c.cores import COMPILER, CORES, EMULATOR, time_probes
from planner.errors import InputError
from planner.network.half_blocks import Attention, Mlp
from planner.network.vit import Block, Shape, VisionTransformer
from planner.profiler.device.latency_table import latency_table, with_table
from planner.profiler.device.probe_design import design_probes
from planner.runtime.c.constants import PANEL, Array
from planner.runtime.c.generate import model_structs
from planner.runtime.c.probes import folder
from planner.runtime.c.probes.folder import make_c_probes
from planner.runtime.c.probes.number_pool import POOL, NumberPool
from planner.schema import ImageInput, Precision, Preprocessing, ProbeResult, read_document
from tests.helpers.c_models import SANITIZERS, STRICT, c_compiler
from tests.helpers.timed_networks import DIGITS, digits_profile
from tests.runtime.c.test_cross import needs

# Outputs beyond one panel of weights, a block without heads and one without channels.
SMALL = Shape((6, 4), 2, 2, 2, 40, 5, (2, 0, 1), (9, 3, 0))
IMAGE = ImageInput(shape=(2, 6, 4), dtype="uint8", preprocessing=Preprocessing(mean=(0.5, 0.5), std=(0.5, 0.5)))
_MAIN = """\
#include <stdio.h>
#include "vit.h"
extern const float probe_weights[];
{structs}
int main(void)
{{
    static float arena[1 << 16], features[{features}];
    static unsigned char image[{values}];
    if (fread(image, sizeof image, 1, stdin) != 1)
        return 1;
    vit_features(&network, image, features, arena, NULL);
    return fwrite(features, sizeof features, 1, stdout) != 1;
}}
"""


class RecordingPool(NumberPool):
    """Pool that notes where each array lies, and whose values it then reads.

    Arrays of a layer are `NAME_weight` with its panels undone, `NAME_scale` and `NAME_bias`.
    """

    def __init__(self, precision: Precision, alignment: int, numbers: bytes) -> None:
        super().__init__(precision, alignment)
        self.is_int8, self.numbers = precision == "int8", numbers
        self.arrays: dict[str, NDArray[np.float64]] = {}

    def floats(self, name: str, values: Array) -> str:
        """Take floats."""
        address = super().floats(name, values)
        self.arrays[name] = self.read(address, values.size).reshape(values.shape)
        return address

    def linear(
        self, name: str, matrix: Array, bias: Array | None = None, row_parts: int = 1, column_parts: int = 1
    ) -> str:
        """Take a layer."""
        initialiser = super().linear(name, matrix, bias, row_parts, column_parts)
        weights, scale, biases, inputs, outputs = initialiser.strip("{}").split(", ")
        assert (int(outputs), int(inputs)) == matrix.shape
        values = self.read(weights, matrix.size, "i1" if self.is_int8 else "<f4")
        parts = np.split(values, row_parts * column_parts)
        shape = (matrix.shape[0] // row_parts, matrix.shape[1] // column_parts)
        undone = np.array([out_of_panels(part, *shape) for part in parts])
        whole = np.concatenate(undone, axis=0) if column_parts == 1 else np.concatenate(undone, axis=1)
        if self.is_int8:
            whole = whole * self.read(scale, matrix.shape[0])[:, None]
        self.arrays[f"{name}_weight"] = whole
        if bias is not None:
            self.arrays[f"{name}_bias"] = self.read(biases, bias.size)
        return initialiser

    def read(self, address: str, count: int, dtype: str = "<f4") -> NDArray[np.float64]:
        """Return numbers at an address of the pool."""
        name, offset = address.split(" + ")
        assert name == POOL
        return np.frombuffer(self.numbers, dtype, count, 4 * int(offset)).astype(np.float64)


def out_of_panels(values: NDArray[np.float64], outputs: int, inputs: int) -> NDArray[np.float64]:
    """Return a matrix (outputs, inputs) whose rows lie in panels: of each, one input's outputs after another's."""
    rows = []
    for first in range(0, outputs, PANEL):
        count = min(PANEL, outputs - first)
        rows.append(values[first * inputs :][: count * inputs].reshape(inputs, count).T)
    return np.concatenate(rows)


def torch_network(shape: Shape, arrays: dict[str, NDArray[np.float64]]) -> VisionTransformer:
    """Return the network that has these arrays, folded constants unfolded."""
    network = VisionTransformer(shape).double().eval()

    def put(parameter: Any, values: NDArray[np.float64]) -> None:
        parameter.data = torch.from_numpy(values.reshape(parameter.shape))

    def put_layer(layer: Any, name: str) -> None:
        put(layer.weight, arrays[f"{name}_weight"])
        put(layer.bias, arrays[f"{name}_bias"])

    def put_attention(attention: Attention, name: str) -> None:
        # Queries are scaled in C, where torch scales the scores.
        factor = np.ones(len(arrays[f"{name}_qkv_bias"]))
        factor[: len(factor) // 3] = shape.head_dim**0.5
        put(attention.qkv.weight, arrays[f"{name}_qkv_weight"] * factor[:, None])
        put(attention.qkv.bias, arrays[f"{name}_qkv_bias"] * factor)
        put_layer(attention.proj, f"{name}_proj")

    def put_mlp(mlp: Mlp, name: str) -> None:
        put_layer(mlp.fc1, f"{name}_fc1")
        put_layer(mlp.fc2, f"{name}_fc2")

    # Columns are in the order (height, width, channel).
    filters = arrays["patch_weight"].reshape(shape.embed_dim, *shape.projected_patch, shape.in_channels)
    put(network.patch_embed.proj.weight, filters.transpose(0, 3, 1, 2).copy())
    put(network.patch_embed.proj.bias, np.zeros(shape.embed_dim))
    put(network.cls_token, np.zeros(shape.embed_dim))
    put(network.pos_embed, arrays["tokens"])
    for l, block in enumerate(network.blocks):
        assert isinstance(block, Block)
        if block.attn is not None:
            put_layer(block.norm1, f"block_{l}_norm1")
            put_attention(block.attn, f"block_{l}")
        if block.mlp is not None:
            put_layer(block.norm2, f"block_{l}_norm2")
            put_mlp(block.mlp, f"block_{l}")
    put_layer(network.norm, "last_norm")
    return network


@pytest.mark.parametrize(("precision", "alignment"), [("float32", 64), ("int8", 4)])
def test_the_answers_are_torchs(precision: Precision, alignment: int, tmp_path: Path) -> None:
    """A network whose arrays are in the pool answers as torch does with the same numbers: it is the one it says."""
    rng = np.random.default_rng(0)
    # Weights of another sign and size than the pool's own, which say more about what is added to what.
    numbers = (0.3 * rng.standard_normal(20_000)).astype("<f4").tobytes()
    pool = RecordingPool(precision, alignment, numbers)
    structs = model_structs(VisionTransformer(SMALL), IMAGE, pool, "network")
    assert pool.num_bytes <= len(numbers)
    (tmp_path / "weights.bin").write_bytes(numbers)
    source = _MAIN.format(structs=structs, features=SMALL.embed_dim, values=IMAGE.num_bytes)
    (tmp_path / "main.c").write_text(source)
    c = Path(folder.__file__).parent
    sources = [str(c.parent / name) for name in ("vit.c", "kernels.c", "probes/weights.S")]
    command = [c_compiler(), "-std=gnu99", "-O1", f"-I{c.parent}", "main.c", *sources, "-lm", "-o", "main"]
    subprocess.run(command, cwd=tmp_path, check=True)
    image = rng.integers(0, 256, IMAGE.num_bytes).astype(np.uint8)
    answered = subprocess.run(tmp_path / "main", input=image.tobytes(), stdout=subprocess.PIPE, check=True).stdout
    pixels = image.reshape(IMAGE.shape).astype(float)
    factor, offset = (pool.arrays[f"input_{name}"][:, None, None] for name in ("factor", "offset"))
    with torch.no_grad():
        network = torch_network(SMALL, pool.arrays)
        expected = network.features(torch.from_numpy(pixels * factor - offset)[None]).numpy()[0]
    assert np.abs(np.frombuffer(answered, "<f4") - expected).max() <= 1e-4 * np.abs(expected).max()


def test_neighbours_in_the_pool_do_not_overlap() -> None:
    """Arrays follow one another at the alignment: 3 floats, then 5 scales, 5 x 3 weights of int8, and 5 biases."""
    pool = NumberPool("int8", 8)
    assert pool.floats("a", np.zeros(3)) == f"{POOL} + 0"
    scale, weights, bias = 4, 4 + 6, 4 + 6 + 4
    expected = f"{{{POOL} + {weights}, {POOL} + {scale}, {POOL} + {bias}, 3, 5}}"
    assert pool.linear("b", np.zeros((5, 3)), np.zeros(5)) == expected
    assert pool.num_bytes == 4 * (bias + 6)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Shape:
    """Six networks of a small model instead of two dozen of the digits'."""
    whole = replace(SMALL, num_heads=(2, 2, 2), hidden_dim=(16, 16, 16))
    monkeypatch.setattr(folder, "whole_shape", lambda card: whole)
    monkeypatch.setattr(folder, "NUM_NETWORKS", 6)
    monkeypatch.setattr(folder, "_image", lambda card: IMAGE)
    return whole


def timed_here(probes: Path, *defines: str) -> ProbeResult:
    """Build the program of a probe folder under sanitizers, without long measurements, and return what it prints."""
    settings = " ".join(f"-D{define}" for define in ("PROBE_WARM_MS=0", "PROBE_TIMED_MS=0", *defines))
    flags = f"CFLAGS=-O1 {' '.join((*STRICT, *SANITIZERS))} {settings}"
    made = ["make", "-C", str(probes), f"CC={c_compiler()}", flags]
    subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
    printed = subprocess.run([probes / "probe"], check=True, stdout=subprocess.PIPE, text=True).stdout
    (probes / "latency.json").write_text(printed)
    return read_document(probes / "latency.json", ProbeResult)


@pytest.mark.usefixtures("few")
def test_a_linux_board_prints_a_latency_json(tmp_path: Path) -> None:
    """Every network at each precision, with the median of its rounds and their spread, and what the device is."""
    manifest = make_c_probes("digits-vit", tmp_path)
    result = timed_here(tmp_path, "PROBE_ROUNDS=4")
    assert result.manifest == manifest
    assert (manifest.engine, manifest.num_pooled_tokens) == ("c", 1)
    probes = [(n.name, p, 1) for n in manifest.networks for p in ("float32", "int8")]
    assert [(t.network, t.precision, t.threads) for t in result.timings] == probes
    for t in result.timings:
        assert len(t.rounds_us) == 4
        assert t.runs >= 4
        assert t.median_us == pytest.approx(statistics.median(t.rounds_us), abs=2e-3)
        deviation = statistics.median(abs(us - t.median_us) for us in t.rounds_us)
        assert t.spread == pytest.approx(1.4826 * deviation / t.median_us, abs=1e-2)
    assert result.device.compiler
    assert result.device.onnxruntime is None
    assert result.failures == ()


@pytest.mark.usefixtures("few")
def test_networks_beyond_the_ram_are_reported(tmp_path: Path) -> None:
    """With the second largest arena all but the widest are timed; the others' reason has both numbers."""
    make_c_probes("digits-vit", tmp_path, ["float32"])
    arenas = sorted({int(a) for a in _arenas(tmp_path)})
    result = timed_here(tmp_path, f"PROBE_ARENA_BYTES={4 * arenas[-2]}")
    assert len(result.timings) + len(result.failures) == 6
    assert {f.reason for f in result.failures} == {
        f"it needs an arena of {4 * arenas[-1]} bytes, PROBE_ARENA_BYTES is {4 * arenas[-2]}"
    }


def _arenas(probes: Path) -> list[str]:
    lines = (probes / "networks.c").read_text().splitlines()
    return [line.strip(" ,").removeprefix(".arena = ") for line in lines if line.startswith("    .arena = ")]


@pytest.mark.parametrize("storage_bytes", [262_144, pytest.param(524_288, marks=pytest.mark.slow)])
def test_a_microcontroller(storage_bytes: int, tmp_path: Path) -> None:
    """A Cortex-M7 with so much flash prints a latency.json whose fit foretells networks to 2 %.

    qemu counts instructions, a nanosecond each, so that no time is disturbed. Times are to two thirds of a microsecond
    what a tick of 40 instructions says.
    """
    needs(COMPILER, EMULATOR)
    core = next(core for core in CORES if core.name == "Cortex-M7")
    make_c_probes("digits-vit", tmp_path, storage_bytes=storage_bytes)
    short = ("PROBE_ROUNDS=1", "PROBE_WARM_MS=0", "PROBE_TIMED_MS=0")
    printed, flash = time_probes(core, tmp_path, short)
    assert 0.8 * storage_bytes < flash <= storage_bytes
    (tmp_path / "latency.json").write_text(printed)
    table = latency_table(read_document(tmp_path / "latency.json", ProbeResult), digits_profile(), threads=1)
    assert table.notes == ()
    for row in table.rows:
        assert row.engine == "c"
        assert row.mape is not None
        assert row.mape <= 0.02
        assert row.last_head_us is not None
    assert {row.precision for row in table.rows} == {"float32", "int8"}
    # Int8 is converted to float before it is multiplied.
    by_key = {(row.embed_dim, row.precision): row for row in table.rows}
    assert by_key[64, "int8"].channel_us > by_key[64, "float32"].channel_us


def test_the_tables_of_both_engines_stand_side_by_side(tmp_path: Path) -> None:
    """Rows of C are put beside those of ONNX Runtime, and replace those of C alone."""
    profile = digits_profile()
    rows = [row.replace(engine="c", fixed_us=1.0) for row in profile.latency["local"]]
    both = with_table(profile, "local", rows)
    assert both.latency["local"] == (*profile.latency["local"], *rows)
    assert with_table(both, "local", rows[:1]).latency["local"] == (*profile.latency["local"], *rows[1:], rows[0])


def test_what_is_too_small_for_any_sub_model_is_refused(tmp_path: Path) -> None:
    """The message has the least flash, at which the narrowest networks can be told apart soon."""
    with pytest.raises(InputError, match=r"`storage`: must be above \d+\.\d KiB, .* got 29\.2 KiB; time fewer"):
        make_c_probes("digits-vit", tmp_path, storage_bytes=29_999)
    assert not list(tmp_path.iterdir())


def test_probes_are_those_of_onnx_runtime_where_there_is_room(tmp_path: Path) -> None:
    """Without a limit of flash, both engines time the same networks."""
    manifest = make_c_probes("digits-vit", tmp_path)
    shapes = design_probes(DIGITS, manifest.widths, 0)
    assert [(n.embed_dim, n.num_heads, n.hidden_dim) for n in manifest.networks] == [
        (s.embed_dim, s.num_heads, s.hidden_dim) for s in shapes
    ]
