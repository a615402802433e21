"""A subject made ready: the whole model, its profile with this machine's latency table, and where its results lie."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rich.progress import Progress

from benchmarks.accuracy import fleets, timing
from benchmarks.accuracy.settings import IMPORTANCE_IMAGES, Budget
from benchmarks.accuracy.store import code_of, key_of
from benchmarks.accuracy.subjects import DIGITS, cache
from planner.library import load_profile
from planner.network import counts
from planner.network.checkpoint import load_card, whole_shape
from planner.network.vit import Shape
from planner.network.widths import embed_widths
from planner.profiler.device.latency_table import latency_table, with_table
from planner.profiler.device.probe_design import design_probes
from planner.rules import cost
from planner.schema import ModelCard, Profile, read_document, write_document

_THREADS = 1
_PROFILER = ("planner/profiler/*.py",)


@dataclass(frozen=True)
class Bench:
    """A subject made ready to be planned for."""

    subject: str
    card_path: Path
    budget: Budget
    profile: Profile

    @cached_property
    def card(self) -> ModelCard:
        """The whole model's card."""
        return load_card(str(self.card_path))

    @cached_property
    def whole(self) -> Shape:
        """The whole model's shape."""
        return whole_shape(self.card)

    @property
    def folder(self) -> Path:
        """Where results are kept."""
        return folder_of(self.subject)

    @cached_property
    def whole_us(self) -> int:
        """The time [us] of the whole model on the fastest device."""
        fleet = fleets.fleet_of("equal-1", 1e9, 0)
        device = next(d for d in cost.device_costs(self.profile, fleet) if d.name == fleets.HERE)
        at = device.at(self.whole.embed_dim)
        assert at is not None
        return at.time.compute_us(self.whole.num_heads, self.whole.hidden_dim)

    @property
    def macs_per_second(self) -> float:
        """The rate at which the whole model runs on the fastest device."""
        return 1e6 * counts.exact(self.whole).macs / self.whole_us

    def fleet(self, name: str) -> fleets.Fleet:
        """Return one of the fleets."""
        return fleets.fleet_of(name, self.macs_per_second, counts.exact(self.whole).params)


def folder_of(subject: str) -> Path:
    """Return where a subject's results are kept."""
    return cache() / "accuracy" / subject


def make_ready(subject: str, card_path: Path, budget: Budget, progress: Progress) -> Bench:
    """Profile a subject's whole model and time this machine; what is known is read."""
    card = load_card(str(card_path))
    task = progress.add_task(f"{subject}: profile", total=None)

    def on_network(done: int, total: int) -> None:
        progress.update(task, description=f"{subject}: networks to time", completed=done, total=total)

    shape = whole_shape(card)
    profile = _untimed(subject, card, card_path)
    folder = folder_of(subject) / f"table-{key_of(card.architecture.model_dump(), budget.networks)}"
    result = timing.probe(
        card.model, shape, design_probes(shape, embed_widths(shape), 0, budget.networks), folder, on_network
    )
    table = latency_table(result, profile, _THREADS)
    profile = fleets.slower(with_table(profile, fleets.HERE, table.rows))
    progress.remove_task(task)
    return Bench(subject, card_path, budget, profile)


def _untimed(subject: str, card: ModelCard, card_path: Path) -> Profile:
    """Return a profile without recovery probes; digits' is shipped."""
    if subject == DIGITS:
        return load_profile("digits-vit")
    # Needs fvcore, which takes a while to import.
    from planner.profiler.build import Options, build_profile

    known = key_of(card.weights_sha256, IMPORTANCE_IMAGES, code_of(_PROFILER))
    path = folder_of(subject) / f"profile-{known}.json"
    if not path.exists():
        options = Options(images_per_class=IMPORTANCE_IMAGES, num_probes=0)
        write_document(path, build_profile(str(card_path), path.with_suffix(""), options))
    return read_document(path, Profile)
