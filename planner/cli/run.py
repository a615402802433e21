"""Commands that execute plans and evaluate the bundles."""

from pathlib import Path
from typing import Annotated

import typer

from planner.cli import terminal
from planner.cli.app import checked_fleet, command, naming, print_plan
from planner.cli.options import (
    BundleFolder,
    Epochs,
    Jobs,
    Json,
    Minutes,
    PlanFile,
    ProfileName,
    RecipeName,
    Scheduler,
    Seed,
    Teacher,
    TlsCa,
    TlsCert,
    TlsKey,
    TrainOn,
)


@command
def execute(
    plan: PlanFile,
    out: Annotated[Path, typer.Option("--out", "-o", help="The bundle's folder.")],
    profile: ProfileName = "digits-vit",
    model: Annotated[str | None, typer.Option(help="The model's card, if it is not the shipped one.")] = None,
    recipe: RecipeName = "default",
    epochs: Epochs = None,
    minutes: Minutes = None,
    teacher: Teacher = None,
    jobs: Jobs = None,
    device: TrainOn = "cpu",
    scheduler: Scheduler = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    seed: Seed = 0,
) -> None:
    """Carry a plan out: cut, retrain and fuse its sub-models.

    What comes of it is a bundle: a folder with the sub-models, their fusion and the plan. Stopped at any moment, the
    same command goes on from where it was.

    Example: planner execute plan.json --out bundle/ --minutes 10
    """
    from planner.executor.bundle import bundle_manifest
    from planner.executor.execute import check_plan, execute_plan
    from planner.executor.recovery_steps import warnings
    from planner.executor.trainers import make_trainer
    from planner.library import load_profile, read_plan
    from planner.report.recovery_text import recovery_table
    from planner.units import count_noun
    from planner.workers import tls_of

    terminal.one_thread()
    loaded, model_profile = read_plan(plan), load_profile(profile)
    with naming(plan):
        check_plan(loaded, model_profile)
    with (
        make_trainer(jobs, scheduler, tls_of(tls_ca, tls_cert, tls_key), device) as trainer,
        terminal.progress() as progress,
    ):
        task = progress.add_task("time a few images", total=None)

        def on_progress(what: str, done: float, total: float) -> None:
            progress.update(task, description=f"train: {what}", completed=done, total=total)

        def on_budget(epochs: float) -> None:
            typer.echo(f"{minutes:g} minutes: enough for --epochs {epochs:g}.", err=True)

        def on_teachers(seconds: float) -> None:
            minutes = count_noun(max(1, round(seconds / 60)), "minute")
            typer.echo(f"Fine-tuning a teacher for each device takes about {minutes} of it.", err=True)

        steps = execute_plan(
            loaded,
            model_profile,
            out,
            model=model,
            recipe=recipe,
            epochs=epochs,
            minutes=minutes,
            seed=seed,
            teacher=teacher,
            trainer=trainer,
            on_progress=on_progress,
            on_budget=on_budget,
            on_teachers=on_teachers,
        )
    if steps:
        terminal.console().print(recovery_table(steps))
    for doubt in warnings(steps, loaded, bundle_manifest(out).epochs):
        typer.echo(f"Warning: {doubt}", err=True)
    typer.echo(f"{out}: bundle of {len(loaded.assignments)} sub-models and their fusion.")


@command
def evaluate(
    bundle: BundleFolder,
    devices: Annotated[
        Path | None, typer.Option("--devices", "-d", help="The fleet, to show the plan on it as well.")
    ] = None,
    json: Json = False,
) -> None:
    """Measure a bundle on the test part.

    Its files must be those that were written, and its sub-models those that were planned.

    Example: planner evaluate bundle/ --devices devices.json
    """
    from planner.executor.bundle import read_bundle
    from planner.executor.evaluate import evaluate_bundle
    from planner.report.text import evaluation_text
    from planner.schema import to_json

    terminal.one_thread()
    with terminal.status("measuring"):
        read = read_bundle(bundle)
        fleet = None if devices is None else checked_fleet(bundle, read.plan, read.profile, devices)
        evaluation = evaluate_bundle(read)
    if json:
        typer.echo(to_json(evaluation), nl=False)
        return
    if fleet is not None:
        print_plan(read.plan, read.profile, fleet, json=False)
        typer.echo()
    terminal.console().print(evaluation_text(evaluation))
