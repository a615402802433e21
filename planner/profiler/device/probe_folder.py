"""Probe folder for a device: ONNX files of the probes, their manifest, and the script that times them.

Times do not depend on the weights' values, so all probes share one file of random numbers instead of their own weight
files. Thus the folder is hardly larger than its largest probe.
"""

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from planner.errors import InputError, setting
from planner.network.checkpoint import load_card, whole_shape
from planner.network.export import data_path, export_onnx, quantise_int8
from planner.network.vit import Shape, VisionTransformer
from planner.network.widths import embed_widths
from planner.profiler.device.probe_design import NUM_NETWORKS, design_probes
from planner.schema import Engine, Precision, ProbeFile, ProbeManifest, ProbeNetwork, write_document
from planner.schema.base import is_temporary, remove_temporary, write_bytes, write_text

SCRIPT, MANIFEST, NUMBERS = "probe.py", "manifest.json", "weights.bin"
PRECISIONS: tuple[Precision, ...] = ("float32", "int8")

_STD = 0.02


def make_probes(
    model: str,
    folder: Path,
    precisions: Sequence[Precision] = PRECISIONS,
    seed: int = 0,
    on_network: Callable[[int, int], None] = lambda done, total: None,
) -> ProbeManifest:
    """Write the folder of a model's probes.

    Args:
        model: A shipped model's name, or the path of a card; its weights are not needed.
        folder: A new or empty folder; files of an interrupted run are written anew.
        precisions: Precisions of the probes; int8 ones are quantised from float32.
        seed: For the probes' sizes and the random weights.
        on_network: Called with the number of probes written so far, and their total.

    Raises:
        InputError: If the folder holds anything else, or onnx is not installed.
    """
    check_folder(folder)
    card = load_card(model)
    whole = whole_shape(card)
    shapes = design_probes(whole, embed_widths(whole), seed, NUM_NETWORKS)
    return write_networks(card.model, whole, shapes, folder, precisions, seed, on_network)


def write_networks(
    model: str,
    whole: Shape,
    shapes: Sequence[Shape],
    folder: Path,
    precisions: Sequence[Precision],
    seed: int,
    on_network: Callable[[int, int], None],
) -> ProbeManifest:
    """Write these sub-models of a model as probes, with the script and the manifest; see `make_probes`."""
    networks, num_bytes = [], 0
    for i, shape in enumerate(shapes):
        on_network(i, len(shapes))
        name = f"n{i + 1:02}"
        files = _write_network(shape, name, folder, precisions, seed)
        num_bytes = max(num_bytes, *(file.num_bytes for file in files.values()))
        networks.append(probe_network(name, shape, files))
    write_bytes(folder / NUMBERS, random_numbers(num_bytes, seed))
    write_script(folder)
    manifest = probe_manifest(model, whole, networks, "onnxruntime")
    remove_temporary(folder)
    # Last: a manifest marks the folder as complete.
    write_document(folder / MANIFEST, manifest)
    on_network(len(shapes), len(shapes))
    return manifest


def probe_network(name: str, shape: Shape, files: Mapping[Precision, ProbeFile]) -> ProbeNetwork:
    """Return the manifest's entry of a network."""
    return ProbeNetwork(
        name=name,
        embed_dim=shape.embed_dim,
        num_heads=shape.num_heads,
        hidden_dim=shape.hidden_dim,
        files=dict(files),
    )


def probe_manifest(model: str, whole: Shape, networks: Sequence[ProbeNetwork], engine: Engine) -> ProbeManifest:
    """Return the manifest of networks like the sub-models of a model."""
    return ProbeManifest(
        model=model,
        engine=engine,
        num_tokens=whole.num_tokens,
        # ONNX Runtime computes all tokens of all blocks.
        num_pooled_tokens=whole.num_pooled_tokens if engine == "c" and whole.pooling == "class_token" else None,
        depth=whole.depth,
        num_heads=whole.num_heads[0],
        head_dim=whole.head_dim,
        hidden_dim=whole.hidden_dim[0],
        gated_mlp=whole.gated_mlp,
        qk_norm=whole.qk_norm,
        widths=embed_widths(whole),
        input_shape=(whole.in_channels, *whole.image_sides),
        networks=tuple(networks),
    )


def write_script(folder: Path) -> None:
    """Write the script that times the probes of its own folder."""
    write_text(folder / SCRIPT, Path(__file__).with_name("probe_script.py").read_text(encoding="utf-8"))


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds anything but the files of an interrupted run."""
    if folder.is_file():
        raise InputError(f"{folder}: must be a folder, got a file.")
    names = sorted(p.name for p in folder.iterdir() if not is_temporary(p)) if folder.is_dir() else []
    # Without a manifest, which comes last, they are left over from an interrupted run.
    others = [name for name in names if name not in (NUMBERS, SCRIPT) and not re.fullmatch(r"n\d+-\w+\.onnx", name)]
    if others:
        raise InputError(f"{folder}: must be a new or empty folder, got one that holds {others[0]!r}.")


def parse_precisions(text: str) -> tuple[Precision, ...]:
    """Return the precisions named in a comma-separated list.

    Raises:
        InputError: If one is unknown or given twice.
    """
    named = [part.strip() for part in text.split(",")]
    precisions = tuple(p for p in PRECISIONS if p in named)
    if len(precisions) < len(named):
        raise InputError(
            f"{setting('precision')} must be one or both of {', '.join(PRECISIONS)}, each once, got {text!r}."
        )
    return precisions


def _write_network(
    shape: Shape, name: str, folder: Path, precisions: Sequence[Precision], seed: int
) -> dict[Precision, ProbeFile]:
    """Export a probe, quantise it, and write both with shared weights."""
    torch.manual_seed(seed)
    model = VisionTransformer(shape).eval()
    with tempfile.TemporaryDirectory() as temporary:
        sources = {p: Path(temporary, f"{name}-{p}.onnx") for p in PRECISIONS}
        export_onnx(model, sources["float32"])
        if "int8" in precisions:
            quantise_int8(sources["float32"], sources["int8"])
        files: dict[Precision, ProbeFile] = {}
        for precision in precisions:
            content, num_bytes = _share_weights(sources[precision])
            file = f"{name}-{precision}.onnx"
            write_bytes(folder / file, content)
            files[precision] = ProbeFile(name=file, num_bytes=num_bytes)
    return files


def _share_weights(source: Path) -> tuple[bytes, int]:
    """Return a graph that refers to the shared weight file instead of its own, and how many bytes it reads there."""
    import onnx

    model: Any = onnx.load(source, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = NUMBERS
    content: bytes = model.SerializeToString()
    return content, data_path(source).stat().st_size


def random_numbers(num_bytes: int, seed: int) -> bytes:
    """Return random float32 numbers of the size of weights; read as int8 they are arbitrary numbers."""
    numbers = np.random.default_rng(seed).standard_normal(-(-num_bytes // 4), dtype=np.float32)
    return (_STD * numbers).astype(np.float32).tobytes()
