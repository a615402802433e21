"""Executions of a subject's cases, and the results that exist."""

from collections.abc import Mapping

from rich.progress import Progress

from benchmarks.accuracy import collect
from benchmarks.accuracy.execution import Execution, Outcome, execution_key, measure_whole, prepare_teacher, whole_key
from benchmarks.accuracy.plans import Case, PlannedCase
from benchmarks.accuracy.prepared_subject import PreparedSubject
from benchmarks.accuracy.results import Study
from benchmarks.accuracy.store import cached, read_json, result_key
from planner.schema import write_document


class SubjectRun:
    """Plans and executions of one subject; what is not cached of the whole model's accuracy and logits is made now."""

    def __init__(self, prepared: PreparedSubject, plans: Mapping[Case, PlannedCase], progress: Progress) -> None:
        self.prepared, self.plans = prepared, plans
        sha = str(prepared.card.weights_sha256)
        self.whole = cached(prepared.folder / f"whole-{whole_key(sha)}.json", self._measure_whole)
        profile = prepared.folder / f"planned-{result_key(prepared.profile.model_dump(mode='json'))}.json"
        if not profile.exists():
            write_document(profile, prepared.profile)
        budget = prepared.budget
        distillation_data = prepared.folder / f"lessons-{result_key(sha, budget.epochs, budget.per_class)}.safetensors"
        task = progress.add_task(f"{prepared.subject}: teacher logits", total=None)

        def on_copy(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        prepare_teacher(str(prepared.card_path), budget, distillation_data, on_copy)
        progress.remove_task(task)
        self.jobs = {
            case: Execution(
                card=str(prepared.card_path),
                profile=profile,
                plan=p.path,
                recipe=case.recipe,
                budget=budget,
                seed=case.seed,
                distillation_data=distillation_data,
                out=prepared.folder
                / "executions"
                / f"{execution_key(p.plan, prepared.profile, sha, case.recipe, budget, case.seed)}.json",
            )
            for case, p in plans.items()
            if p.plan is not None and p.path is not None
        }

    def _measure_whole(self) -> dict[str, object]:
        return measure_whole(str(self.prepared.card_path))

    def outcomes(self) -> dict[Case, Outcome]:
        """Return the outcomes of the cases that were executed."""
        results = {case: read_json(job.out) for case, job in self.jobs.items()}
        return {case: Outcome(**fields) for case, fields in results.items() if fields is not None}

    def study(self, times: dict[str, float]) -> Study:
        """Return the results that exist, for the page; times are those of `timing.time_shapes`."""
        return collect.collect_study(self.prepared, self.whole, times, self.plans, self.outcomes())
