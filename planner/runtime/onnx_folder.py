"""Device folder for ONNX Runtime: graph and weights, worker.pyz, expected.npz, run.sh."""

import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.network.export import INPUT, data_path, export_onnx, quantise_int8
from planner.network.vit import VisionTransformer
from planner.runtime.deployment import MODEL, RUN, WEIGHTS, WORKER
from planner.runtime.device.names import EXPECTED
from planner.runtime.device.session import open_session
from planner.runtime.engine_folders import ExpectedAnswers, FeaturesOf, SubModelFacts
from planner.runtime.worker_archive import worker_archive
from planner.schema import ImageInput, Precision
from planner.schema.base import write_bytes, write_text

_RUN = f"""#!/bin/sh
# Starts the worker of this folder: sh run.sh [--listen HOST:PORT] [--self-test]
# With the virtual environment beside the folder, if there is one; or PYTHON=/usr/bin/python3 sh run.sh
folder=$(dirname "$0")
if test -x "$folder/../venv/bin/python3"; then python=$folder/../venv/bin/python3; else python=python3; fi
exec "${{PYTHON:-$python}}" "$folder/{WORKER}" "$folder" "$@"
"""


class OnnxFolder:
    """Writer of what ONNX Runtime needs."""

    model = MODEL

    def write_network(self, network: VisionTransformer, precision: Precision, image: ImageInput, folder: Path) -> None:
        """Write a sub-model as a graph, quantised where the precision is int8."""
        path = folder / MODEL
        if precision == "float32":
            export_onnx(network, path, image)
            return
        with tempfile.TemporaryDirectory() as name:
            source = Path(name, MODEL)
            export_onnx(network, source, image)
            quantise_int8(source, path)
        assert data_path(path).name == WEIGHTS

    def load(self, folder: Path) -> FeaturesOf:
        """Return the graph in a session as on a device."""
        session = open_session(folder / MODEL)

        def features_of(images: NDArray[Any]) -> NDArray[np.float32]:
            rows = [session.run(None, {INPUT: images[i : i + 1]})[0] for i in range(len(images))]
            return np.concatenate(rows)

        return features_of

    def write_worker(self, folder: Path, about: SubModelFacts, expected: ExpectedAnswers) -> Sequence[str]:
        """Write worker, expected answers and run.sh."""
        write_bytes(folder / WORKER, worker_archive())
        write_bytes(folder / EXPECTED, npz({"images": expected.images, "features": expected.features}))
        write_text(folder / RUN, _RUN)
        return MODEL, WEIGHTS, WORKER, EXPECTED, RUN


def npz(arrays: dict[str, Any]) -> bytes:
    """Return arrays as the content of an .npz file."""
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()
