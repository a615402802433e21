"""Plans and executions of the ViT's rows: those of the accuracy benchmark, from the profile of the truth benchmark."""

from pathlib import Path

from rich.progress import Progress

from benchmarks.accuracy import fleets
from benchmarks.accuracy.plans import OURS, PRUNED, Case, PlannedCase, plan_case
from benchmarks.accuracy.prepared_subject import PreparedSubject
from benchmarks.rivals.settings import Effort
from benchmarks.truth.profiles import profile_of
from benchmarks.truth.subjects import is_there, subjects
from planner.errors import InfeasibleError, InputError
from planner.network.checkpoint import find_card
from planner.profiler.device.local_latency import KIND

ROWS = (Case(PRUNED), Case(OURS))


def prepare(effort: Effort, progress: Progress) -> PreparedSubject:
    """Return the subject with its profile, whose times of the machine that it was made on stand for this one's.

    Raises:
        InputError: If the model is not there.
    """
    subject = subjects()[effort.subject]
    if not is_there(subject):
        raise InputError(f"{subject.card}: must be the card of the whole model, got no file; set PLANNER_MODELS.")
    profile = profile_of(subject, progress)
    here = profile.replace(latency={fleets.HERE: profile.latency[KIND]})
    card = Path(subject.card) if subject.card.endswith(".json") else find_card(subject.card)
    return PreparedSubject(subject.name, card, effort.retraining, fleets.with_slower_kinds(here))


def plans_of(prepared: PreparedSubject) -> dict[Case, PlannedCase]:
    """Return the plans of both rows.

    Raises:
        InfeasibleError: If there is none.
    """
    plans = {case: plan_case(prepared, case) for case in ROWS}
    for planned in plans.values():
        if planned.plan is None:
            raise InfeasibleError(planned.reason)
    return plans
