"""Functions that `import planner` offers: solving, and analysis of plans."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from planner import library, whatif
from planner.errors import InputError, setting
from planner.report.planned import Planned
from planner.rules.check import check
from planner.rules.diff import diff_frame
from planner.schema import Fleet, Goal, Plan, Profile, ScenarioFile, did_you_mean, read_document
from planner.solver import DEFAULT_TIME_LIMIT_S, SolveOptions
from planner.solver import solve as solve_plan
from planner.workers import make_executor

# One text, or several.
Texts = str | Sequence[str]


def solve(
    profile: Profile | str | Path,
    fleet: Fleet,
    goal: Goal | None = None,
    *,
    time_limit_s: float = DEFAULT_TIME_LIMIT_S,
    deterministic: bool = False,
    start: Plan | None = None,
    advice: bool = True,
    seed: int = 0,
) -> Planned:
    """Return the best plan of a model on a fleet, with a bound on how much better any other could be.

    Args:
        profile: Profile of the model, the name of a shipped one, or the path of a file.
        fleet: Devices and links.
        goal: Constraints and objective; least latency at an accuracy drop of 2 points unless given.
        time_limit_s: Time after which the best plan so far is returned, with its gap.
        deterministic: Count work instead of seconds, so that the same plan comes out on every machine.
        start: Earlier plan: of plans equally good, the one nearest to it is returned.
        advice: If there is no plan, look for the smallest changes that would do.
        seed: Seed of the baselines' random subsets; the exact method draws nothing.

    Raises:
        InputError: If an argument is not what it must be, or the arguments do not go together.
        InfeasibleError: If no plan exists; the message says why and what would help.
        TimeLimitError: If no plan was found in time, though one may exist.
    """
    profile = _profile_of(profile)
    _must_be(fleet, Fleet, "fleet", "planner.load_fleet reads one")
    _must_be(goal, (Goal, type(None)), "goal", "planner.Goal(max_accuracy_drop=0.05) is one")
    _must_be(start, (Plan, type(None)), "start", "planner.load_plan reads one")
    _must_be_time(time_limit_s)
    plan = solve_plan(
        profile,
        fleet,
        goal,
        SolveOptions(seed=seed, time_limit_s=time_limit_s, deterministic=deterministic, start=start, advice=advice),
    )
    return Planned.of(plan, profile, fleet)


def load_plan(path: str | Path, profile: Profile | str | Path, fleet: Fleet) -> Planned:
    """Read a plan.json and check it against its profile and fleet.

    Raises:
        InputError: If the file cannot be used, or the plan is not a valid one for this profile and fleet.
    """
    profile = _profile_of(profile)
    _must_be(fleet, Fleet, "fleet", "planner.load_fleet reads one")
    plan = library.read_plan(path)
    if problems := check(plan, profile, fleet):
        raise InputError(f"{path}: {problems[0]}.")
    return Planned.of(plan, profile, fleet)


def what_if(
    plan: Planned,
    *,
    drop: Texts = (),
    drop_each: bool = False,
    add: Texts = (),
    add_each: Texts = (),
    set: Texts = (),
    scale: Texts = (),
    sweep: Texts = (),
    scenarios: str | Path | None = None,
    cross: bool = False,
    jobs: int = 1,
    scheduler: str | None = None,
    time_limit_s: float = DEFAULT_TIME_LIMIT_S,
    deterministic: bool = False,
    seed: int = 0,
) -> pd.DataFrame:
    """Solve again after changes of the fleet or the goal, and return a row for each change, "today" first.

    The changes are written as on the command line, `planner what-if --help`; each argument takes one text or several.
    Each change is a scenario of its own, which starts from the plan.

    Args:
        plan: The plan that runs today.
        drop: Devices to lose: "pump", or "pump,vent-1" for both at once.
        drop_each: Lose each device by itself.
        add: Devices to add: "esp32-s3" or "esp32-s3=2", a kind or a device of the fleet to add another of.
        add_each: Kinds to add one at a time: "esp32-s3,rp2350".
        set: Number of a device or of its links to set: "pump.memory_budget=512KiB".
        scale: Factors on all of a fleet's budgets or links: "memory=0.5..2/7", "bandwidth=0.5,2" or "latency=2".
        sweep: Values of a key of the goal: "max-accuracy-drop=0.01,0.05".
        scenarios: File of named scenarios.
        cross: Take every combination of the changes instead of each by itself.
        jobs: Number of parallel processes.
        scheduler: Address of a Dask cluster to use instead of processes.
        time_limit_s: Time limit of each scenario.
        deterministic: Count work instead of seconds, so that the same rows come out every time.
        seed: Seed of the baselines' random subsets.

    Returns:
        Columns: status, latency_us, change_us, bound_us (at the plan's retention floors), gap, bottleneck,
        devices_used, memory_bytes, energy_mj, lowest_retention, predicted_accuracy, goal_bound_us (of any plan within
        the accuracy drop), classes_moved, bytes_to_send, reason (why there is no plan), seconds, out_of_time (whether
        the time limit ended the search, so that another run may move and retain otherwise).

    Raises:
        InputError: If a change is a mistake, before anything is solved.
    """
    today = _today(plan, time_limit_s, seed, deterministic)
    request = whatif.ChangeRequest(
        drop=_texts(drop),
        drop_each=drop_each,
        add=_texts(add),
        add_each=_texts(add_each),
        set=_texts(set),
        scale=_texts(scale),
        sweep=_texts(sweep),
        scenarios=None if scenarios is None else read_document(Path(scenarios), ScenarioFile),
    )
    changes = whatif.expand(whatif.axes_of(request, plan.fleet), today.case, cross)
    with make_executor(None if scheduler else jobs, scheduler) as workers:
        return whatif.frame_of(whatif.solve_all(today, changes, workers))


def pareto(
    plan: Planned,
    against: whatif.Against,
    *,
    points: int = whatif.DEFAULT_POINTS,
    jobs: int = 1,
    time_limit_s: float = DEFAULT_TIME_LIMIT_S,
    seed: int = 0,
) -> pd.DataFrame:
    """Return the Pareto front of latency against another quantity, a row for each point.

    Args:
        plan: The plan that runs today.
        against: Quantity that latency is set against: "accuracy", "memory" or "energy".
        points: Number of limits to try; accuracy drops are half a point to twenty.
        jobs: Number of parallel processes, as in `what_if`.
        time_limit_s: Time limit of each point.
        seed: Seed of the baselines' random subsets.

    Returns:
        Columns: against, limit (the largest accuracy drop; the factor on all memory budgets; the energy limit [mJ]),
        value (the plan's predicted accuracy; the bytes that all devices grant; its energy [mJ]), latency_us,
        bound_us (for any plan within the limit), gap, status.

    Raises:
        InputError: If the profile or the fleet lacks what is needed.
    """
    known = get_args(whatif.Against)
    if against not in known:
        raise InputError(
            f"{setting('against')} must be one of {', '.join(known)}, "
            f"got {against!r}{did_you_mean(str(against), known) or '.'}"
        )
    today = _today(plan, time_limit_s, seed)
    with make_executor(jobs) as workers:
        return whatif.pareto(today, against, points, workers)


def next_best(
    plan: Planned,
    kinds: Texts | None = None,
    *,
    jobs: int = 1,
    time_limit_s: float = DEFAULT_TIME_LIMIT_S,
    seed: int = 0,
) -> pd.DataFrame:
    """Return the gain of each purchase or upgrade, each of them solved, with the best first.

    The candidates are one more device of each kind, each device's memory doubled, and the bandwidth of each one's
    links doubled.

    Args:
        plan: The plan that runs today.
        kinds: Kinds that could be bought; all known kinds unless given.
        jobs: Number of parallel processes, as in `what_if`.
        time_limit_s: Time limit of each candidate.
        seed: Seed of the baselines' random subsets.

    Returns:
        Columns: those of `what_if`, and gain_us (latency saved).

    Raises:
        InputError: If a kind is not known.
    """
    today = _today(plan, time_limit_s, seed)
    with make_executor(jobs) as workers:
        return whatif.next_best(today, None if kinds is None else _texts(kinds), workers)


def diff(earlier: Planned, plan: Planned) -> pd.DataFrame:
    """Return the difference of two plans: a row for each device whose sub-model changes.

    Columns: gains, loses (classes), bytes_to_send.

    Raises:
        InputError: If the plans are of different profiles.
    """
    _must_be(earlier, Planned, "earlier", "planner.solve and planner.load_plan make one")
    _must_be(plan, Planned, "plan", "planner.solve and planner.load_plan make one")
    if earlier.profile_sha256 != plan.profile_sha256:
        raise InputError(
            f"plans must be of one profile, got {earlier.profile_sha256[:12]}... and {plan.profile_sha256[:12]}..."
        )
    return diff_frame(earlier, plan, plan.profile)


def _today(plan: Planned, time_limit_s: float, seed: int, deterministic: bool = False) -> whatif.Today:
    _must_be(plan, Planned, "plan", "planner.solve and planner.load_plan make one")
    _must_be_time(time_limit_s)
    return whatif.today_of(
        plan.profile, plan.fleet, start=plan, seed=seed, time_limit_s=time_limit_s, deterministic=deterministic
    )


def _texts(texts: Texts) -> tuple[str, ...]:
    return (texts,) if isinstance(texts, str) else tuple(texts)


def _must_be_time(time_limit_s: float) -> None:
    if not time_limit_s >= 0:
        raise InputError(f"{setting('time_limit_s')} must be >= 0, got {time_limit_s}.")


def _profile_of(profile: Profile | str | Path) -> Profile:
    if isinstance(profile, (str, Path)):
        return library.load_profile(profile)
    _must_be(profile, Profile, "profile", "planner.load_profile reads one")
    return profile


def _must_be(value: Any, types: type | tuple[type, ...], name: str, hint: str) -> None:
    if not isinstance(value, types):
        expected = types[0] if isinstance(types, tuple) else types
        raise InputError(
            f"{setting(name)} must be a {expected.__name__} ({hint}), got {type(value).__name__} {str(value)[:60]!r}."
        )
