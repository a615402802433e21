"""The work folder: what was ordered, what the teacher said, and how far each training is.

order.json            whose work it is
lessons.safetensors   how images are moved, and the teacher's answers and tokens
CC-PP-NAME.safetensors   the state of the training at position PP of call CC of a recipe
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save

from planner.errors import InputError, PlannerError
from planner.executor.bundle import MANIFEST, METRICS, WORK, read_bundle
from planner.executor.epoch_tasks import Trainer
from planner.network.data import Jitter, Samples
from planner.network.distillation_data import NUM_COPIES, DistillationData, distillation_data
from planner.network.training import Epoch, TrainingTask, history
from planner.network.vit import VisionTransformer
from planner.schema import sha256_of
from planner.schema.base import Document, read_document, write_bytes, write_text

ORDER, LESSONS = "order.json", "lessons.safetensors"


class RunConfig(Document):
    """What is to be done: a folder that was begun by another order is not gone on with."""

    plan_sha256: str
    weights_sha256: str
    teacher_sha256: str
    recipe: str
    epochs: int
    seed: int

    def check_is(self, out: Path, begun: "RunConfig") -> None:
        """Refuse to go on with what another order began."""
        ours, theirs = self.model_dump(), begun.model_dump()
        differing = [key for key in ours if ours[key] != theirs[key]]
        if differing:
            said = ", ".join(f"{key.replace('_', ' ')} {theirs[key]!r} (now {ours[key]!r})" for key in differing)
            raise InputError(f"{out}: was begun with {said}; delete it or name another folder.")


def run_config_of(out: Path) -> RunConfig | None:
    """Return by what order a folder was begun, or its bundle made; None if nothing is there yet.

    Raises:
        InputError: If other files are there.
    """
    if (out / MANIFEST).exists():
        bundle = read_bundle(out)
        said = bundle.manifest
        return RunConfig(
            plan_sha256=sha256_of(bundle.plan),
            weights_sha256=bundle.profile.weights_sha256,
            teacher_sha256=said.teacher_sha256,
            recipe=said.recipe,
            epochs=said.epochs,
            seed=said.seed,
        )
    path = out / WORK / ORDER
    if path.exists():
        return read_document(path, RunConfig)
    # Folders, and what a run left that was killed or found no space while it wrote its order, are nobody's.
    if any(path.is_file() and not path.name.startswith(f".{ORDER}.") for path in out.rglob("*")):
        raise InputError(f"{out}: must be empty or a bundle that was begun, got a folder with other files in it.")
    return None


def checkpointed_distillation_data(
    path: Path,
    teacher: VisionTransformer,
    samples: Samples,
    jitter: Jitter,
    seed: int,
    epochs: int,
    on_copy: Callable[[int, int], None],
) -> DistillationData:
    """Return the lessons of a file, or ask the teacher and write them there.

    Raises:
        PlannerError: If the file is damaged.
    """
    if not path.exists():
        lessons = distillation_data(teacher, samples, jitter, seed, min(NUM_COPIES, epochs), on_copy)
        said = {"moves": lessons.moves, "answers": lessons.answers, "tokens": lessons.tokens}
        write_bytes(path, save({name: tensor.contiguous() for name, tensor in said.items()}))
        return lessons
    try:
        found = load(path.read_bytes())
        return DistillationData(samples.images, samples.labels, found["moves"], found["answers"], found["tokens"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise PlannerError(f"{path}: must hold a teacher's answers ({error}); delete it to ask again.") from None


class CheckpointedTrainer:
    """A `Train` whose states are kept in a folder, so that a run which was stopped goes on.

    Names may repeat over a recipe's calls: states are numbered by call and position.
    """

    def __init__(self, out: Path, means: Trainer, on_epoch: Callable[[int, int, Epoch], None]) -> None:
        self.out, self.means, self.on_epoch = out, means, on_epoch
        self.num_calls = 0
        # By call and position; a state's epochs are in it, so that a run that goes on has each of them once.
        self._epochs: dict[tuple[int, int], list[Epoch]] = {}

    def __call__(self, trainings: Sequence[TrainingTask]) -> None:
        call = self.num_calls
        paths = [self.out / WORK / _state_file(call, i, training.name) for i, training in enumerate(trainings)]
        known = [_num_epochs(path) for path in paths]

        def on_epoch(position: int, epoch: Epoch) -> None:
            self._epochs.setdefault((call, position), []).append(epoch)
            self.on_epoch(call, position, epoch)
            if epoch.epoch > known[position]:
                self._write_metrics()

        self.means(trainings, paths, on_epoch)
        # A run that was killed may have left its last epoch out.
        self._write_metrics()
        self.num_calls += 1

    def _write_metrics(self) -> None:
        """Write a line for each epoch so far, in an order that does not depend on who was faster."""
        epochs = [epoch for at in sorted(self._epochs) for epoch in self._epochs[at]]
        write_text(self.out / METRICS, "".join(json.dumps(asdict(epoch)) + "\n" for epoch in epochs))


def _num_epochs(path: Path) -> int:
    """Return how many epochs a training has behind it.

    Raises:
        PlannerError: If its state is damaged.
    """
    if not path.exists():
        return 0
    try:
        return len(history(path.read_bytes()))
    except PlannerError as error:
        raise PlannerError(f"{path}: {error}") from None


def _state_file(call: int, position: int, name: str) -> str:
    return f"{call:02d}-{position:02d}-{re.sub(r'[^A-Za-z0-9._-]+', '_', name)[:60]}.safetensors"
