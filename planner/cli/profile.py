"""Command that measures models, and shows profiles."""

import shutil
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planner.cli import terminal
from planner.cli.app import check_out, command
from planner.cli.options import Json, Seed
from planner.errors import InputError
from planner.units import count_noun

if TYPE_CHECKING:
    from planner.profiler.budget import ProfileBudget


class ImportanceName(str, Enum):
    """Measure of importance."""

    thinned = "thinned"
    shapley = "shapley"
    fisher = "fisher"
    taylor = "taylor"
    kl = "kl"
    magnitude = "magnitude"


@command
def profile(
    model: Annotated[str, typer.Argument(help="A shipped model's name, or the path of a card.json.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the profile here.")] = None,
    show: Annotated[
        bool, typer.Option("--show", help="Measure nothing: show a profile.json, or a shipped profile by its name.")
    ] = False,
    importance: Annotated[
        ImportanceName, typer.Option(help="How to find out which class needs what.")
    ] = ImportanceName.thinned,
    minutes: Annotated[
        float, typer.Option(help="Time for it all; images and trial plans are chosen to fit.", min=1)
    ] = 20,
    images_per_class: Annotated[
        int | None,
        typer.Option(help="Training images to measure importance on, of each class.  [default: fit the time]", min=2),
    ] = None,
    trial_plans: Annotated[
        int, typer.Option(help="Small plans to execute for the accuracy they keep, at most; 0: none.", min=0, max=64)
    ] = 32,
    epochs: Annotated[
        float | None, typer.Option(help="Retraining of each trial plan.  [default: 10 if time allows, else 0]", min=0)
    ] = None,
    multiple: Annotated[int, typer.Option(help="Channels are kept in multiples of this.", min=1)] = 8,
    seed: Seed = 0,
    jobs: Annotated[
        int | None, typer.Option(help="Trial plans executed side by side, each on a core.  [default: all cores]", min=1)
    ] = None,
    json: Json = False,
) -> None:
    """Measure a model: its costs, and what each class needs.

    Also what accuracy survives which pruning, and this machine's speed. Stopped at any moment, or ended with too few
    trial plans, the same command goes on from where it was. A card without weights gets costs alone.

    Example: planner profile digits-vit --out profile.json
             planner profile profile.json --show
    """
    if show:
        _show(model, json)
        return
    from planner.profiler.build import build_profile
    from planner.profiler.options import ProfileOptions, Stage
    from planner.report.latency_text import latency_warnings
    from planner.report.profile_text import has_few_trial_plans, prediction_lines
    from planner.schema import to_json, write_document
    from planner.workers import make_executor

    check_out(out)
    terminal.one_thread()
    work = out.with_name(f".{out.name}.work") if out else Path(f".{Path(model).parent.name or model}.profile.work")
    options = ProfileOptions(importance.value, minutes, images_per_class, trial_plans, epochs, multiple, seed)
    with terminal.progress() as progress:
        tasks: dict[str, Any] = {}

        def on_stage(stage: Stage) -> None:
            if stage.name not in tasks:
                for task in tasks.values():
                    progress.update(task, completed=progress.tasks[task].total)
                tasks[stage.name] = progress.add_task(stage.name)
            progress.update(tasks[stage.name], completed=stage.done, total=stage.total)

        def on_budget(budget: "ProfileBudget") -> None:
            progress.console.print(_extent(budget, trial_plans), highlight=False)

        with make_executor(jobs) as workers:
            built = build_profile(model, work, options, on_stage, workers, on_budget)
    if out is None:
        typer.echo(to_json(built), nl=False)
    else:
        write_document(out, built)
        typer.echo(f"{out}: profile of {built.model}.")
    for line in prediction_lines(built):
        typer.echo(line, err=True)
    for doubt in latency_warnings(built):
        typer.echo(f"Warning: {doubt}", err=True)
    if has_few_trial_plans(built):
        typer.echo(f"Given more --minutes or --trial-plans, the same command goes on from {work}.", err=True)
    else:
        shutil.rmtree(work, ignore_errors=True)


def _extent(budget: "ProfileBudget", trial_plans: int) -> str:
    """Return what fits into the time, in a line of at most 80 columns."""
    text = (
        f"{count_noun(budget.minutes, 'minute')}: at most {count_noun(budget.images_per_class, 'image')} of each class"
    )
    if not trial_plans:
        return f"{text}, no trial plans."
    retrained = f" of {count_noun(budget.epochs, 'epoch')}" if budget.epochs else ", not retrained"
    return f"{text} and {count_noun(trial_plans, 'trial plan')}{retrained}."


def _show(name: str, json: bool) -> None:
    from planner.library import folder, load_profile
    from planner.schema import to_json

    if name in {path.parent.name for path in folder("models").glob("*/card.json")} - {
        path.stem for path in folder("profiles").glob("*.json")
    }:
        raise InputError(
            f"No profile comes with {name}: measure one by `planner profile {name} --out profile.json`, then show "
            "profile.json."
        )
    loaded = load_profile(name)
    if json:
        typer.echo(to_json(loaded), nl=False)
        return
    from planner.report.profile_text import profile_text

    terminal.console().print(profile_text(loaded))
