"""Tables of docs/c-engine.md: accuracy of a bundle in C, microcontrollers under qemu, and times beside ONNX Runtime.

    python -m benchmarks.c [build/demo/bundle]

Needs gcc, arm-none-eabi-gcc with newlib, and qemu-system-arm. The times want a machine that does nothing else.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.c.cores import CORES, measure
from benchmarks.c.cycles import KINDS, instructions_of, shown
from benchmarks.c.instructions import model_errors, random_shapes
from benchmarks.c.probes import probe_errors
from benchmarks.c.speed import compared
from planner.executor.bundle import Bundle, read_bundle
from planner.network import counts, data
from planner.network.data.pixels import normalise
from planner.network.vit import Shape, VisionTransformer
from planner.rules.c_memory import C_CODE_BYTES, c_arena_bytes, c_weight_bytes
from planner.runtime.c.generate import c_sizes, model_files
from planner.runtime.c.host import HostModel
from planner.runtime.export import image_input
from planner.runtime.export_check import sent_values
from planner.schema import ImageInput, Precision

PRECISIONS: tuple[Precision, ...] = ("float32", "int8")
TINY = Shape(224, 16, 3, 1000, embed_dim=192, head_dim=64, num_heads=(3,) * 12, hidden_dim=(768,) * 12)
_NUM_IMAGES, _NUM_RANDOM = 4, 16


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path, nargs="?", default=Path("build/demo/bundle"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    bundle = read_bundle(options.bundle)
    image = image_input(bundle.card, bundle.profile)
    tables = (
        accuracies(bundle, image),
        microcontrollers(bundle, image),
        cycles_for_each_mac(bundle, image),
        latency_model(bundle, image),
        probes(),
        times(bundle, image),
    )
    for table in tables:
        for line in table:
            print(line, flush=True)
        print()


def accuracies(bundle: Bundle, image: ImageInput) -> Iterator[str]:
    """Yield a table of features and fused answers in C beside torch's."""
    yield "| images | precision | largest error of a feature | accuracy | torch's | the same class |"
    yield "|---|---|---|---|---|---|"
    test, train = data.load_stored_test(bundle.card), data.load(bundle.card, "train")
    for name, parts in {"test part": [test], "all": [test, train]}.items():
        sent = np.concatenate([sent_values(part.images, slice(None), image) for part in parts])
        labels = torch.cat([part.labels for part in parts])
        pixels = normalise(torch.from_numpy(sent).float(), image.preprocessing)
        of_torch = np.concatenate([_of_torch(model, pixels) for model in bundle.sub_models], axis=1)
        expected = _classes(bundle, of_torch)
        for precision in PRECISIONS:
            features = np.concatenate([_features(m, image, precision, sent) for m in bundle.sub_models], axis=1)
            error, classes = np.abs(features - of_torch).max() / np.abs(of_torch).max(), _classes(bundle, features)
            right, of_torch_right = (float((answer == labels).float().mean()) for answer in (classes, expected))
            same = f"{int((classes == expected).sum())} of {len(sent)}"
            yield f"| {name} | {precision} | {error:.1e} | {right:.2%} | {of_torch_right:.2%} | {same} |"


def _classes(bundle: Bundle, features: NDArray[np.float32]) -> torch.Tensor:
    """Return the fused answers (B,) of features (B, F)."""
    with torch.inference_mode():
        return torch.argmax(bundle.fusion(torch.from_numpy(features)), dim=1)


def microcontrollers(bundle: Bundle, image: ImageInput) -> Iterator[str]:
    """Yield a table of flash, RAM and instructions of each sub-model on each core, as planned and as seen."""
    test, _ = data.load_test(bundle.card)
    sent = sent_values(test.images, slice(_NUM_IMAGES), image)
    pixels = normalise(torch.from_numpy(sent).float(), image.preprocessing)
    yield "| device | precision | core | flash, planned | flash | arena | stack | instructions | for each MAC | error |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for a, model in zip(bundle.plan.assignments, bundle.sub_models, strict=True):
        shape = model.shape
        units = shape.num_heads, shape.hidden_dim
        for precision in PRECISIONS:
            planned = c_weight_bytes(c_sizes(shape), *units, precision) + C_CODE_BYTES
            expected = _features(model, image, precision, sent) if precision == "int8" else _of_torch(model, pixels)
            for core in CORES:
                with tempfile.TemporaryDirectory() as folder:
                    seen = measure(core, model_files(model, image, precision), sent, expected, Path(folder))
                flash = seen.constants_bytes + seen.code_bytes
                yield (
                    f"| {a.device} | {precision} | {core.name} | {planned:,} | {flash:,} ({flash / planned - 1:+.1%}) "
                    f"| {c_arena_bytes(c_sizes(shape), *units):,} | {seen.stack_bytes} | {seen.instructions:,} "
                    f"| {seen.instructions / _macs(shape):.1f} | {seen.error:.0e} |"
                )


def cycles_for_each_mac(bundle: Bundle, image: ImageInput) -> Iterator[str]:
    """Yield a table of instructions by kind, and of the cycles that they take, on each core with an FPU."""
    yield f"| device | core | {' | '.join((*KINDS, 'other'))} | all | cycles |"
    yield f"|---|---|{'---|' * (len(KINDS) + 3)}"
    pixels = np.full((1, *image.shape), 7, np.uint8)
    for core in CORES[1:]:
        for a, model in zip(bundle.plan.assignments, bundle.sub_models, strict=True):
            with tempfile.TemporaryDirectory() as folder:
                files = model_files(model, image, "float32")
                measure(core, files, pixels, _features(model, image, "float32", pixels), Path(folder))
                counts = instructions_of(core, Path(folder))
            for_each = {kind: count / _macs(model.shape) for kind, count in counts.items()}
            yield f"| {a.device} | {core.name} | {' | '.join(shown(core, for_each))} |"


def latency_model(bundle: Bundle, image: ImageInput) -> Iterator[str]:
    """Yield a table of the latency model's errors on instructions, at the widest and the narrowest embed dim."""
    yield "| embed dim | precision | sub-models | mean error | largest |"
    yield "|---|---|---|---|---|"
    widths = [width.embed_dim for width in bundle.profile.widths]
    for embed_dim in (max(widths), min(widths)):
        shapes = random_shapes(bundle.whole.shape, embed_dim, _NUM_RANDOM, seed=embed_dim)
        for precision in PRECISIONS:
            errors = model_errors(shapes, image, precision)
            yield f"| {embed_dim} | {precision} | {_NUM_RANDOM} | {errors.mean:.1%} | {errors.largest:.1%} |"


def probes() -> Iterator[str]:
    """Yield a table of the latency model's errors on probes, fitted for all embed dims at once."""
    yield "| where | precision | mean error | one in twenty exceeds | largest |"
    yield "|---|---|---|---|---|"
    for seen in probe_errors():
        yield f"| {seen.where} | {seen.precision} | {seen.mean:.1%} | {seen.p95:.1%} | {seen.largest:.1%} |"


def times(bundle: Bundle, image: ImageInput) -> Iterator[str]:
    """Yield a table of times in C and in ONNX Runtime on this machine."""
    tiny_image = image.replace(
        shape=(3, 224, 224), preprocessing=image.preprocessing.replace(mean=(0.5,) * 3, std=(0.5,) * 3)
    )
    networks = [
        *((a.device, m, image) for a, m in zip(bundle.plan.assignments, bundle.sub_models, strict=True)),
        ("whole model", bundle.whole, image),
        ("ViT-Tiny", VisionTransformer(TINY).eval(), tiny_image),
    ]
    yield "| network | MACs | precision | ONNX Runtime [us] | C [us] | share |"
    yield "|---|---|---|---|---|---|"
    for name, network, sent in networks:
        for precision in PRECISIONS:
            speed = compared(network, sent, precision)
            yield (
                f"| {name} | {_macs(network.shape):,} | {precision} | {speed.onnxruntime_us:,.0f} | {speed.c_us:,.0f} "
                f"| {speed.c_us / speed.onnxruntime_us:.2f} |"
            )


def _features(
    network: VisionTransformer, image: ImageInput, precision: Precision, sent: NDArray[np.uint8]
) -> NDArray[np.float32]:
    with HostModel(model_files(network, image, precision)) as model:
        return model.features(sent)


def _of_torch(network: VisionTransformer, pixels: torch.Tensor) -> NDArray[np.float32]:
    with torch.inference_mode():
        features: NDArray[np.float32] = network.features(pixels).numpy()
    return features


def _macs(shape: Shape) -> int:
    """Return the MACs of a network's features, without its head layers."""
    return counts.exact(shape).macs - shape.num_pooled_tokens * shape.embed_dim * shape.num_classes


if __name__ == "__main__":
    main()
