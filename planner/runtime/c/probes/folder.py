"""Probe folder in C: the networks, their shared weights, the engine, and a program that times them.

One program times all networks, at all precisions: a board is flashed once. Where its flash is smaller than the whole
model, the networks are such as it can hold, as its sub-models will be.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from planner.errors import InputError
from planner.network.checkpoint import load_card, whole_shape
from planner.network.vit import Shape, VisionTransformer
from planner.network.widths import embed_widths
from planner.profiler.device import probe_folder
from planner.profiler.device.latency_fit import TimedNetwork, num_parameters
from planner.profiler.device.probe_design import NUM_NETWORKS, design_probes
from planner.rules.c_memory import C_CODE_BYTES, c_struct_bytes, c_weight_bytes
from planner.runtime.c.files import engine_files
from planner.runtime.c.generate import arena_bytes, c_sizes, model_structs
from planner.runtime.c.probes.number_pool import POOL, NumberPool
from planner.schema import (
    ImageInput,
    ModelCard,
    Precision,
    Preprocessing,
    ProbeFile,
    ProbeManifest,
    ProbeNetwork,
    is_audio,
    sha256_of,
    write_document,
)
from planner.schema.base import bytes_rounded_down, write_bytes, write_text
from planner.units import format_bytes, visible

_NETWORKS = "networks.c"
_SOURCES = ("probe.h", "probe.c", "probe_posix.c", "weights.S")
_HERE = Path(__file__).parent
# As PROBE_ROUNDS of probe.h.
_ROUNDS = 5
# Measured for a Cortex-M7 at -O2: probe.c, and what it needs of the C library beside the engine.
_PROGRAM_BYTES = 3072
# Terms of the latency model at one width, fixed time among them.
_NUM_TERMS = 5
# Of each network at each precision: its name and address, gaps between arrays at its ends and in a block, and its part
# of the manifest.
_ENTRY_BYTES, _MAX_GAP_BYTES = 32, 48
_LINE_BYTES, _LINE_BYTES_PER_BLOCK = 160, 6
_CACHE_LINE, _WORD = 64, 4

_NETWORKS_H = """\
/* Networks to time, generated. */
#ifndef VIT_NETWORKS_H
#define VIT_NETWORKS_H

#include "vit.h"

#define NUM_PROBES {num_probes}
#define NUM_MANIFEST_LINES {num_lines}
/* The largest of any network. */
#define NETWORKS_ARENA_BYTES {arena}
#define NETWORKS_IMAGE_BYTES {image}
#define NETWORKS_NUM_FEATURES {features}
#define PROBE_MANIFEST_SHA256 "{sha256}"

typedef struct {{
    const char *name, *precision;
    const vit_model *model;
}} probe_network;

extern const probe_network PROBES[NUM_PROBES];
extern const char *const PROBE_MANIFEST[NUM_MANIFEST_LINES];

#endif
"""
_NETWORKS_C = """\
#include "networks.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "The numbers of weights.bin are little-endian."
#endif
extern const float {pool}[];

{structs}
const probe_network PROBES[NUM_PROBES] = {{
    {probes}}};

const char *const PROBE_MANIFEST[NUM_MANIFEST_LINES] = {{
    {manifest}}};
"""


@dataclass(frozen=True)
class _Networks:
    """Networks in C: of each its entry in the manifest, structs of all, and bytes of the longest's weights."""

    entries: tuple[ProbeNetwork, ...]
    structs: tuple[str, ...]
    num_bytes: int


def make_c_probes(
    model: str,
    folder: Path,
    precisions: Sequence[Precision] = probe_folder.PRECISIONS,
    seed: int = 0,
    storage_bytes: int | None = None,
    on_network: Callable[[int, int], None] = lambda done, total: None,
) -> ProbeManifest:
    """Write the folder of a model's probes in C.

    Args:
        model: A shipped model's name, or the path of a card; its weights are not needed.
        folder: A new or empty folder.
        precisions: Precisions of the probes.
        seed: For the probes' sizes and the random weights.
        storage_bytes: Flash that the program of the probes may take [bytes]; None: a Linux board's memory.
        on_network: Called with the number of probes generated so far, and their total.

    Raises:
        InputError: If the folder holds anything, or no network fits.
    """
    probe_folder.check_folder(folder)
    card = load_card(model)
    whole = whole_shape(card)
    shapes = _shapes(whole, precisions, seed, storage_bytes)
    # What the engine aligns weights to: lines of the cache where it has vectors.
    alignment = _CACHE_LINE if storage_bytes is None else _WORD
    image = _image(card)
    networks = _networks(shapes, image, precisions, alignment, on_network)
    manifest = probe_folder.probe_manifest(card.model, whole, networks.entries, "c")
    files = {name: text for name, text in engine_files().items() if not name.startswith("fusion")}
    files |= {name: _text(name) for name in _SOURCES} | {"Makefile": _text("Makefile.probes")}
    lines = _manifest_lines(manifest)
    arena = max(map(arena_bytes, shapes))
    files["networks.h"] = _NETWORKS_H.format(
        num_probes=len(shapes) * len(precisions),
        num_lines=len(lines),
        arena=arena,
        image=image.num_bytes,
        features=max(shape.embed_dim for shape in shapes),
        sha256=sha256_of(manifest),
    )
    files[_NETWORKS] = _source(networks, lines)
    files["README.md"] = _text("README.probes.md").format(
        model=visible(card.model),
        count=len(shapes),
        precisions=" and ".join(precisions),
        flash=networks.num_bytes + _beside_weights(whole, len(shapes) * len(precisions)),
        ram=arena + image.num_bytes + 4 * whole.embed_dim + 48 * len(shapes) * len(precisions),
        arena=arena,
        rounds=_ROUNDS,
    )
    for name, text in files.items():
        write_text(folder / name, text)
    write_bytes(folder / probe_folder.NUMBERS, probe_folder.random_numbers(networks.num_bytes, seed))
    # Last: a manifest marks the folder as complete.
    write_document(folder / probe_folder.MANIFEST, manifest)
    return manifest


def parse_storage(text: str) -> int:
    """Return the bytes of a size such as "512KiB".

    Raises:
        InputError: If it is none.
    """
    try:
        return int(bytes_rounded_down(int(text) if text.isdecimal() else text))
    except ValueError as error:
        message = str(error)
        raise InputError(message if message.endswith("?") else f"{message}.", field="storage") from None


def _shapes(whole: Shape, precisions: Sequence[Precision], seed: int, storage_bytes: int | None) -> list[Shape]:
    """Design the networks, of the widths that fit.

    Raises:
        InputError: If none does.
    """
    widths = embed_widths(whole)
    if storage_bytes is None:
        return design_probes(whole, widths, seed, NUM_NETWORKS)
    overhead = _beside_weights(whole, NUM_NETWORKS * len(precisions))

    def flash_bytes(shape: Shape) -> int:
        return overhead + max(c_weight_bytes(c_sizes(shape), shape.num_heads, shape.hidden_dim, p) for p in precisions)

    units = (1,) + (0,) * (whole.depth - 1)
    smallest = {e: flash_bytes(replace(whole, embed_dim=e, num_heads=units, hidden_dim=units)) for e in widths}
    fitting = [e for e in widths if smallest[e] <= storage_bytes]
    shapes = []
    if fitting:
        shapes = design_probes(whole, fitting, seed, NUM_NETWORKS, lambda shape: flash_bytes(shape) <= storage_bytes)
    timed = [TimedNetwork(shape.embed_dim, shape.num_heads, shape.hidden_dim, 1.0) for shape in shapes]
    if not fitting or num_parameters(timed) < _NUM_TERMS * min(2, len(fitting)):
        raise InputError(
            f"must be above {format_bytes(min(smallest.values()), 'up')}, for networks that differ in heads and hidden "
            f"channels, got {format_bytes(storage_bytes, 'down')}; time fewer precisions, or a smaller model.",
            field="storage",
        )
    return shapes


def _beside_weights(whole: Shape, num_probes: int) -> int:
    """Return the flash of everything but the weights [bytes], at most: code, structs, manifest."""
    sizes = c_sizes(whole)
    structs = c_struct_bytes(sizes, whole.depth) + _ENTRY_BYTES + _MAX_GAP_BYTES * (1 + whole.depth)
    manifest = num_probes * (_LINE_BYTES + _LINE_BYTES_PER_BLOCK * whole.depth)
    return C_CODE_BYTES + _PROGRAM_BYTES + num_probes * structs + manifest


def _image(card: ModelCard) -> ImageInput:
    """Return the image as it will be sent; its normalisation takes the same time with any numbers."""
    a = card.architecture
    any_number = (0.5,) * a.in_channels
    return ImageInput(
        shape=(a.in_channels, *a.image_sides),
        dtype="float32" if is_audio(card.data) else "uint8",
        preprocessing=Preprocessing(mean=any_number, std=any_number),
    )


def _networks(
    shapes: Sequence[Shape],
    image: ImageInput,
    precisions: Sequence[Precision],
    alignment: int,
    on_network: Callable[[int, int], None],
) -> _Networks:
    """Generate all networks."""
    entries, structs, num_bytes = [], [], 0
    for i, shape in enumerate(shapes):
        on_network(i, len(shapes))
        name = f"n{i + 1:02}"
        # Its own weights are random, and are not used.
        network = VisionTransformer(shape)
        files: dict[Precision, ProbeFile] = {}
        for precision in precisions:
            pool = NumberPool(precision, alignment)
            structs.append(model_structs(network, image, pool, f"{name}_{precision}"))
            files[precision] = ProbeFile(name=_NETWORKS, num_bytes=pool.num_bytes)
            num_bytes = max(num_bytes, pool.num_bytes)
        entries.append(probe_folder.probe_network(name, shape, files))
    on_network(len(shapes), len(shapes))
    return _Networks(tuple(entries), tuple(structs), num_bytes)


def _source(networks: _Networks, manifest_lines: Sequence[str]) -> str:
    probes = [f'{{"{n.name}", "{p}", &{n.name}_{p}}}' for n in networks.entries for p in n.files]
    return _NETWORKS_C.format(
        pool=POOL,
        # `const` alone would give them to the whole program.
        structs="\n".join(networks.structs).replace("\nconst vit_model", "\nstatic const vit_model"),
        probes=",\n    ".join(probes),
        # A question mark may begin a trigraph.
        manifest=",\n    ".join(json.dumps(line).replace("?", "\\?") for line in manifest_lines),
    )


def _manifest_lines(manifest: ProbeManifest) -> list[str]:
    """Return the manifest as JSON, with a line for each network: compilers refuse long texts."""
    data = manifest.model_dump(mode="json")
    networks = [json.dumps(network, separators=(",", ":")) for network in data.pop("networks")]
    return [json.dumps(data)[:-1], ', "networks": [', *(f"{n}," for n in networks[:-1]), f"{networks[-1]}]}}"]


def _text(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
