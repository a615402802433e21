"""Subject prepared for planning: the whole model, its profile with this machine's latency table, its results folder."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rich.progress import Progress

from benchmarks.accuracy import fleets, timing
from benchmarks.accuracy.settings import IMPORTANCE_IMAGES, PROFILE_MINUTES, Budget
from benchmarks.accuracy.store import code_hash, result_key
from benchmarks.accuracy.subjects import DIGITS, cache_folder
from planner.library import load_profile
from planner.network import counts
from planner.network.checkpoint import load_card, whole_shape
from planner.network.vit import Shape
from planner.network.widths import embed_widths
from planner.profiler.device.latency_table import latency_table, with_table
from planner.profiler.device.probe_design import design_probes
from planner.rules import cost
from planner.schema import Fleet, ModelCard, Profile, read_document, write_document

_THREADS = 1
_PROFILER = ("planner/profiler/**/*.py",)


@dataclass(frozen=True)
class PreparedSubject:
    """Whole model with its profile and budget, prepared for planning."""

    subject: str
    card_path: Path
    budget: Budget
    profile: Profile

    @cached_property
    def card(self) -> ModelCard:
        """Card of the whole model."""
        return load_card(str(self.card_path))

    @cached_property
    def whole(self) -> Shape:
        """Shape of the whole model."""
        return whole_shape(self.card)

    @property
    def folder(self) -> Path:
        """Folder of the results."""
        return results_folder(self.subject)

    @cached_property
    def whole_us(self) -> int:
        """Time [us] of the whole model on the fastest device."""
        fleet = fleets.fleet_of("equal-1", 1e9, 0)
        device = next(d for d in cost.device_costs(self.profile, fleet) if d.name == fleets.HERE)
        at = device.at(self.whole.embed_dim)
        assert at is not None
        return at.time.compute_us(self.whole.num_heads, self.whole.hidden_dim)

    @property
    def macs_per_second(self) -> float:
        """Rate at which the fastest device runs the whole model."""
        return 1e6 * counts.exact(self.whole).macs / self.whole_us

    def fleet(self, name: str) -> Fleet:
        """Return one of the fleets."""
        return fleets.fleet_of(name, self.macs_per_second, counts.exact(self.whole).params)


def results_folder(subject: str) -> Path:
    """Return the folder of a subject's results."""
    return cache_folder() / "accuracy" / subject


def prepare_subject(subject: str, card_path: Path, budget: Budget, progress: Progress) -> PreparedSubject:
    """Profile a subject's whole model and time this machine, or read both from the cache."""
    card = load_card(str(card_path))
    task = progress.add_task(f"{subject}: profile", total=None)

    def on_network(done: int, total: int) -> None:
        progress.update(task, description=f"{subject}: networks to time", completed=done, total=total)

    shape = whole_shape(card)
    profile = _profile_without_table(subject, card, card_path)
    folder = results_folder(subject) / f"table-{result_key(card.architecture.model_dump(), budget.networks)}"
    result = timing.time_networks(
        card.model, shape, design_probes(shape, embed_widths(shape), 0, budget.networks), folder, on_network
    )
    table = latency_table(result, profile, _THREADS)
    profile = fleets.with_slower_kinds(with_table(profile, fleets.HERE, table.rows))
    progress.remove_task(task)
    return PreparedSubject(subject, card_path, budget, profile)


def _profile_without_table(subject: str, card: ModelCard, card_path: Path) -> Profile:
    """Return a profile with the times of this machine alone; that of digits is shipped."""
    if subject == DIGITS:
        return load_profile("digits-vit")
    # Imported here, since it needs fvcore, which takes a while to import.
    from planner.profiler.build import build_profile
    from planner.profiler.options import ProfileOptions

    key = result_key(card.weights_sha256, IMPORTANCE_IMAGES, PROFILE_MINUTES, code_hash(_PROFILER))
    path = results_folder(subject) / f"profile-{key}.json"
    if not path.exists():
        options = ProfileOptions(minutes=PROFILE_MINUTES, images_per_class=IMPORTANCE_IMAGES)
        write_document(path, build_profile(str(card_path), path.with_suffix(""), options))
    return read_document(path, Profile)
