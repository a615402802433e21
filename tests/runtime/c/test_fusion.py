"""The fusion in C against plain arithmetic."""

import ctypes
import itertools
import subprocess
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_ndtr

from planner.network.fusion import Fusion, fresh_fusion
from planner.runtime.c.files import engine_files
from planner.runtime.c.generate_fusion import fusion_files
from tests.helpers.c_models import STRICT, c_compiler

EMBED_DIMS, HIDDEN, CLASSES = (24, 5, 40), 33, 7
GUARD = 16
Doubles: TypeAlias = NDArray[np.float64]


def plain_logits(fusion: Fusion, features: NDArray[np.float32], present: NDArray[np.uint8]) -> Doubles:
    """Return logits (C,) in double precision of features (F,), of which only those of present devices are read."""
    w = {name: tensor.double().numpy() for name, tensor in fusion.state_dict().items()}
    x = np.where(np.repeat(present, EMBED_DIMS), (features - w["mean"]) / w["std"], 0)
    hidden = w["fc1.weight"] @ x + w["fc1.bias"]
    logits: Doubles = w["fc2.weight"] @ (hidden * np.exp(log_ndtr(hidden))) + w["fc2.bias"]
    return logits


def test_logits_of_any_devices(tmp_path: Path) -> None:
    """Logits are exact to 1e-5 whoever answers; nothing else is read, and nothing written behind the arena."""
    features = 3 * torch.randn(50, sum(EMBED_DIMS), generator=torch.Generator().manual_seed(0)) + 1
    fusion = fresh_fusion(features, EMBED_DIMS, HIDDEN, CLASSES, 0)
    files = fusion_files(fusion)
    for name, text in {**engine_files(), **files}.items():
        (tmp_path / name).write_text(text)
    sources = ("kernels.c", "fusion.c", "fusion_model.c")
    flags = ("-std=c99", "-O1", "-shared", "-fPIC", *STRICT)
    subprocess.run([c_compiler(), *flags, "-o", "fusion.so", *sources, "-lm"], cwd=tmp_path, check=True)
    library = ctypes.CDLL(str(tmp_path / "fusion.so"))
    size = sum(EMBED_DIMS) + HIDDEN
    assert f"#define FUSION_ARENA_BYTES {4 * size}\n" in files["fusion_model.h"]
    for bits in itertools.product((0, 1), repeat=len(EMBED_DIMS)):
        present = np.array(bits, np.uint8)
        sent = np.where(np.repeat(present, EMBED_DIMS), features[7].numpy(), np.nan).astype(np.float32)
        arena, logits = np.full(size + GUARD, 9, np.float32), np.full(CLASSES + GUARD, 9, np.float32)
        library.fusion_infer(*(ctypes.c_void_p(a.ctypes.data) for a in (sent, present, logits, arena)))
        expected = plain_logits(fusion, sent, present)
        np.testing.assert_allclose(logits[:CLASSES], expected, atol=1e-5)
        assert (arena[size:] == 9).all()
        assert (logits[CLASSES:] == 9).all()
