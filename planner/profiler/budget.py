"""Time budget of a profile: how many images and which trial plans fit into so many minutes.

Importance gets about a quarter of the time; what sub-models that are recovered to learn the worth of half-blocks and
widths take is given; trial plans get the rest, half of it or more. The choice is kept in the work folder, so that an
interrupted profile goes on with the same images; given other minutes, it has these for what is left.
"""

import time
from pathlib import Path

import torch
from torch.nn import functional as F

from planner.errors import InputError
from planner.network import data
from planner.network.compute_device import mixed_precision
from planner.network.data import Samples
from planner.network.recipes.default import max_reconstruction_images
from planner.network.recipes.recovery_task import DEFAULT_EPOCHS
from planner.network.vit import Shape, VisionTransformer
from planner.profiler import importance
from planner.profiler.fused_accuracy import TrialOptions
from planner.profiler.importance_sums import weights_hash
from planner.profiler.options import ProfileOptions
from planner.profiler.work_files import read_work_file
from planner.schema import Frozen, ModelCard, write_document

_IMPORTANCE_SHARE, _TRIALS_SHARE = 0.25, 0.5
_MIN_IMAGES_PER_CLASS, _MAX_IMAGES_PER_CLASS = 4, 200
# Trial plans are retrained where so many of them can be, by a rough estimate: three boards of half the whole model.
_ENOUGH_TRIALS, _WHOLE_MODELS_PER_TRIAL = 16, 1.5
# Where the largest ones, of six boards that keep nearly everything, would leave time for fewer, they remove more.
_FEW_TRIALS, _MIN_RELATIVE_MACS, _MAX_RELATIVE_MACS = 8, 1.0, 6.0
# A forward pass is a third of a training step. A trial plan has three devices on average, and the reconstruction of
# each needs a pass of the whole model and two of the sub-model.
_FORWARD_SHARE, _DEVICES_PER_TRIAL, _SUB_MODEL_PASSES = 1 / 3, 3, 2
_TIMED_IMAGES = 32


class ProfileBudget(Frozen):
    """Extent of a measurement that fits into a number of minutes."""

    weights: str
    minutes: float
    images_per_class: int
    # Retraining of the trial plans; 0: recovery in closed form alone.
    epochs: float
    # Most MACs of a trial plan's sub-models together, as a multiple of the whole model's.
    max_relative_macs: float

    def trial_options(self, options: ProfileOptions, seconds_taken: float) -> TrialOptions:
        """Return the extent of the trial plans, which get all that is left of the time [s]."""
        seconds = 60 * self.minutes - seconds_taken
        return TrialOptions(options.max_trials, self.epochs, self.max_relative_macs, seconds, options.seed)


def read_budget(
    file: Path, card: ModelCard, whole: VisionTransformer, options: ProfileOptions, num_workers: int
) -> ProfileBudget:
    """Return the budget in a file, with the minutes as they are now, or choose one; it is written there.

    Args:
        file: File of the work folder; it may exist already.
        card: Card of the model.
        whole: The whole model.
        options: Options of the profile; what they give is not chosen.
        num_workers: Number of trial plans that are executed at a time.

    Raises:
        InputError: If the file belongs to another measurement.
    """
    if file.exists():
        found = read_work_file(file, ProfileBudget)
        given = {"images_per_class": options.images_per_class, "epochs": options.epochs}
        expected = {"weights": weights_hash(whole)} | {key: value for key, value in given.items() if value is not None}
        if any(getattr(found, key) != value for key, value in expected.items()):
            raise InputError(f"{file}: holds the budget of another measurement; delete its folder to begin again.")
        if found.minutes != options.minutes:
            found = found.replace(minutes=options.minutes)
            write_document(file, found)
        return found
    samples = data.load(card, "train")
    drawn = torch.randperm(len(samples), generator=torch.Generator().manual_seed(options.seed))[:_TIMED_IMAGES]
    few = samples.take(drawn)
    per_class = options.images_per_class
    if per_class is None:
        num_images = 60 * options.minutes * _IMPORTANCE_SHARE / _importance_seconds(options, whole, few)
        per_class = round(num_images / whole.shape.num_classes)
        per_class = max(_MIN_IMAGES_PER_CLASS, min(per_class, _MAX_IMAGES_PER_CLASS))
    epochs, of_image = options.epochs, _training_seconds(whole, few)
    of_trials = 60 * options.minutes * _TRIALS_SHARE * num_workers  # [s]
    if epochs is None:
        of_trial = DEFAULT_EPOCHS * len(samples) * _WHOLE_MODELS_PER_TRIAL * of_image
        epochs = DEFAULT_EPOCHS if of_trial * _ENOUGH_TRIALS <= of_trials else 0
    num_steps = of_trials / _FEW_TRIALS / of_image
    chosen = ProfileBudget(
        weights=weights_hash(whole),
        minutes=options.minutes,
        images_per_class=per_class,
        epochs=epochs,
        max_relative_macs=_max_relative_macs(num_steps, whole.shape, len(samples), epochs),
    )
    write_document(file, chosen)
    return chosen


def _max_relative_macs(num_steps: float, whole: Shape, num_images: int, epochs: float) -> float:
    """Return the most MACs of a trial plan that takes no longer than so many training steps of an image.

    Features are extracted from all images, and training steps taken for as many as there are in the epochs.
    """
    reconstructed = min(num_images, max_reconstruction_images(whole))
    of_whole = _DEVICES_PER_TRIAL * reconstructed * _FORWARD_SHARE
    of_sub_models = (num_images + _SUB_MODEL_PASSES * reconstructed) * _FORWARD_SHARE + num_images * epochs
    return min(max((num_steps - of_whole) / of_sub_models, _MIN_RELATIVE_MACS), _MAX_RELATIVE_MACS)


def _importance_seconds(options: ProfileOptions, whole: VisionTransformer, few: Samples) -> float:
    """Return the time of measuring importance on one image [s]."""
    importance.measure_on(options.method, whole, few.images[:2], few.labels[:2], options.seed)
    begun = time.perf_counter()
    importance.measure_on(options.method, whole, few.images[:], few.labels, options.seed)
    return (time.perf_counter() - begun) / len(few)


def _training_seconds(whole: VisionTransformer, few: Samples) -> float:
    """Return the time of a training step of the whole model, for one image [s]."""
    parameters = [p.requires_grad_() for p in whole.parameters()]
    seconds = []
    for images, labels in ((few.images[:2], few.labels[:2]), (few.images[:], few.labels)):
        begun = time.perf_counter()
        with mixed_precision(whole):
            logits = whole(images)
        F.cross_entropy(logits.float(), labels).backward()
        seconds.append((time.perf_counter() - begun) / len(labels))
    for p in parameters:
        p.grad = None
        p.requires_grad_(False)
    return seconds[-1]
