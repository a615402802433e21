"""LayerScale, folded: a factor on each embed dim of what a half-block adds, which is a factor on its output layer.

    x + gamma * (W a + b)  =  x + (gamma W) a + gamma b

The folded network is equal to the original up to rounding, and needs no tensors or operations of its own.

Source: Going deeper with Image Transformers, arXiv 2103.17239.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from planner.errors import InputError
from planner.network.naming_schemes import Scheme, in_file

# Names of the factors, timm's, by the layer into which they are folded; its EVA and BEiT have the second.
_FACTORS = {
    "attn.proj": re.compile(r"blocks\.(\d+)\.(?:ls1\.gamma|gamma_1)"),
    "mlp.fc2": re.compile(r"blocks\.(\d+)\.(?:ls2\.gamma|gamma_2)"),
}


def fold_layer_scale(source: Path, tensors: Mapping[str, Tensor], names: Scheme) -> tuple[dict[str, Tensor], int]:
    """Return a checkpoint's tensors with all LayerScale factors folded, and the number of factors.

    Args:
        source: The checkpoint, for error messages.
        tensors: Its tensors by our names, factors by timm's.
        names: The file's names of our parameters, for error messages.

    Raises:
        InputError: If a factor does not fit the layer before it.
    """
    folded, num_factors = dict(tensors), 0
    for factor, gamma in tensors.items():
        for layer, pattern in _FACTORS.items():
            found = pattern.fullmatch(factor)
            if found is None:
                continue
            weight, bias = (f"blocks.{found[1]}.{layer}.{end}" for end in ("weight", "bias"))
            for name in (weight, bias):
                if name not in folded or folded[name].shape[:1] != gamma.shape:
                    got = "none" if name not in folded else f"shape {tuple(folded[name].shape)}"
                    raise InputError(
                        f"{source}: tensor {in_file(names, name)[0]!r} must have a row for each of the "
                        f"{gamma.numel()} factors in {factor!r}, got {got}."
                    )
            folded[weight] = folded[weight] * gamma[:, None]
            folded[bias] = folded[bias] * gamma
            del folded[factor]
            num_factors += 1
    return folded, num_factors
