"""The work folder: the configuration of a run, the distillation data, and the state of each training.

order.json               the configuration of the run to which the folder belongs
lessons.safetensors      the moves of the images' copies, and the teacher's logits and features, or its pooled tokens
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
from planner.network.distillation_data import DistillationData, copies_for, made_from_pooled, make_distillation_data
from planner.network.lazy_logits import LazyLogits
from planner.network.training import Epoch, TrainingTask, history
from planner.network.vit import VisionTransformer
from planner.schema import sha256_of
from planner.schema.base import Document, read_document, write_bytes, write_text

# Names and keys of files stay as they are: with others, a run that was stopped could not be resumed.
RUN_CONFIG_FILE, DISTILLATION_DATA_FILE = "order.json", "lessons.safetensors"


class RunConfig(Document):
    """Configuration of a run: a folder that was begun with another one cannot be resumed."""

    plan_sha256: str
    weights_sha256: str
    teacher_sha256: str
    recipe: str
    epochs: int | float
    seed: int
    subset_teachers: bool = False

    def check_matches(self, out: Path, earlier: "RunConfig") -> None:
        """Check that a folder was begun with this configuration.

        Raises:
            InputError: If it was begun with another one.
        """
        ours, theirs = self.model_dump(), earlier.model_dump()
        differing = [key for key in ours if ours[key] != theirs[key]]
        if differing:
            changes = ", ".join(f"{key.replace('_', ' ')} {theirs[key]!r} (now {ours[key]!r})" for key in differing)
            raise InputError(f"{out}: was begun with {changes}; delete it or name another folder.")


def read_run_config(out: Path) -> RunConfig | None:
    """Return the configuration with which a folder was begun, or its bundle made; None if nothing is there yet.

    Raises:
        InputError: If other files are there.
    """
    if (out / MANIFEST).exists():
        bundle = read_bundle(out)
        manifest = bundle.manifest
        return RunConfig(
            plan_sha256=sha256_of(bundle.plan),
            weights_sha256=bundle.profile.weights_sha256,
            teacher_sha256=manifest.teacher_sha256,
            recipe=manifest.recipe,
            epochs=manifest.epochs,
            seed=manifest.seed,
            subset_teachers=manifest.subset_teachers,
        )
    path = out / WORK / RUN_CONFIG_FILE
    if path.exists():
        return read_document(path, RunConfig)
    # Folders, and temporary files of a run that was killed or found no space while it wrote its configuration, are no
    # reason to refuse.
    if any(path.is_file() and not path.name.startswith(f".{RUN_CONFIG_FILE}.") for path in out.rglob("*")):
        raise InputError(f"{out}: must be empty or a bundle that was begun, got a folder with other files in it.")
    return None


def checkpointed_distillation_data(
    path: Path,
    teacher: VisionTransformer,
    samples: Samples,
    jitter: Jitter,
    seed: int,
    epochs: float,
    on_copy: Callable[[int, int], None],
) -> DistillationData:
    """Return the distillation data of a file, or run the teacher and write them there.

    Raises:
        PlannerError: If the file is damaged.
    """
    if not path.exists():
        data = make_distillation_data(teacher, samples, jitter, seed, copies_for(epochs), on_copy)
        logits = data.teacher_logits
        if isinstance(logits, LazyLogits):
            tensors = {"moves": data.moves, "pooled": logits.pooled}
        else:
            tensors = {"moves": data.moves, "answers": logits, "tokens": data.teacher_features}
        write_bytes(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}))
        return data
    try:
        tensors = load(path.read_bytes())
        if "pooled" in tensors:
            return made_from_pooled(samples, tensors["moves"], teacher, tensors["pooled"])
        return DistillationData(
            samples.images, samples.labels, *(tensors[key] for key in ("moves", "answers", "tokens"))
        )
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise PlannerError(
            f"{path}: must hold a teacher's logits and features ({error}); delete it to compute them again."
        ) from None


class CheckpointedTrainer:
    """A `TrainFunction` that writes training states to a folder, so that a run which was stopped can be resumed.

    Names may repeat over a recipe's calls: states are numbered by call and position.
    """

    def __init__(self, out: Path, trainer: Trainer, on_epoch: Callable[[int, int, Epoch], None]) -> None:
        self.out, self.trainer, self.on_epoch = out, trainer, on_epoch
        self.num_calls = 0
        # By call and position. A state holds its own epochs, so that a resumed run counts each of them once.
        self._epochs: dict[tuple[int, int], list[Epoch]] = {}

    def __call__(self, tasks: Sequence[TrainingTask]) -> None:
        call = self.num_calls
        paths = [self.out / WORK / _state_file(call, i, task.name) for i, task in enumerate(tasks)]
        resumed_at = [_last_epoch(path) for path in paths]

        def on_epoch(position: int, epoch: Epoch) -> None:
            self._epochs.setdefault((call, position), []).append(epoch)
            self.on_epoch(call, position, epoch)
            if epoch.epoch > resumed_at[position]:
                self._write_metrics()

        self.trainer(tasks, paths, on_epoch)
        # The metrics of a run that was killed may lack its last epoch.
        self._write_metrics()
        self.num_calls += 1

    def _write_metrics(self) -> None:
        """Write a line for each epoch so far, in an order that does not depend on which training was faster."""
        epochs = [epoch for key in sorted(self._epochs) for epoch in self._epochs[key]]
        write_text(self.out / METRICS, "".join(json.dumps(asdict(epoch)) + "\n" for epoch in epochs))


def _last_epoch(path: Path) -> int:
    """Return the last finished epoch of a training, 0 for its start; -1 if nothing is done.

    Raises:
        PlannerError: If its state is damaged.
    """
    if not path.exists():
        return -1
    try:
        return history(path.read_bytes())[-1].epoch
    except PlannerError as error:
        raise PlannerError(f"{path}: {error}") from None


def _state_file(call: int, position: int, name: str) -> str:
    return f"{call:02d}-{position:02d}-{re.sub(r'[^A-Za-z0-9._-]+', '_', name)[:60]}.safetensors"
