"""Device folder for the C engine: engine, sub-model and worker as C, with a Makefile, a README and run.sh."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from planner.errors import InputError
from planner.files import read_text
from planner.network.vit import VisionTransformer
from planner.runtime.c.files import engine_files
from planner.runtime.c.generate import model_files
from planner.runtime.c.host import HostModel, find_compiler
from planner.runtime.c.worker_files import worker_files
from planner.runtime.engine_folders import ExpectedAnswers, FeaturesOf, SubModelFacts
from planner.schema import ImageInput, Precision
from planner.schema.base import write_text


class CFolder:
    """Writer of what the C engine needs."""

    model = "model.c"

    def write_network(self, network: VisionTransformer, precision: Precision, image: ImageInput, folder: Path) -> None:
        """Write the engine and a sub-model."""
        # The aggregator's fusion is no part of a worker.
        engine = {name: text for name, text in engine_files().items() if not name.startswith("fusion")}
        _write(folder, engine | model_files(network, image, precision))

    def load(self, folder: Path) -> FeaturesOf | None:
        """Return the sub-model, built here; None without a compiler."""
        try:
            find_compiler()
        except InputError:
            return None
        files = {name: read_text(folder / name) for name in (self.model, "model.h")}
        # Once it is loaded, a library needs its file no more.
        with HostModel(files) as model:
            return model.features

    def write_worker(self, folder: Path, about: SubModelFacts, expected: ExpectedAnswers) -> Sequence[str]:
        """Write the worker and what tells it apart from others."""
        sources = sorted(path.name for path in folder.glob("*.c"))
        _write(folder, worker_files(about, expected, sources))
        return sorted(path.name for path in folder.iterdir())


def _write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        write_text(folder / name, text)
