"""Rehearsal of a bundle: the whole fleet on this machine, predicted beside measured.

Real worker processes answer real frames. What this machine cannot be, the links and the processors of the fleet, is
held to the plan by waiting: a worker computes, then sleeps until the planned moment.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from planner.errors import InputError, PlannerError, setting
from planner.executor.bundle import Bundle, opened
from planner.network import data
from planner.rules.engine import engine_of
from planner.runtime.aggregator import Aggregator
from planner.runtime.c.build import check_can_build
from planner.runtime.deployment import read_deployment
from planner.runtime.export import export_bundle
from planner.runtime.export_check import sent_values
from planner.runtime.rehearsal.crew import Crew
from planner.runtime.rehearsal.namespaces import Namespaces
from planner.runtime.rehearsal.outages import Outages, parse_kills
from planner.runtime.rehearsal.paths import paths_of
from planner.runtime.rehearsal.predicted import Expectation, expectations
from planner.runtime.rehearsal.prepared import PreparedRehearsal, RehearsalOptions, load_average
from planner.runtime.rehearsal.result import rehearsal_of
from planner.runtime.rehearsal.tally import Tally
from planner.runtime.rehearsal.work_folder import work_folder
from planner.schema import Engine, Fleet, Rehearsal

OnRehearsal = Callable[[str, float, float], None]

# Answers before the first that counts: they fill caches.
_WARM_UP = 5
_CONNECT_S = 60.0
# Images go on until devices that were taken away are back, for so long.
_MAX_AWAY_S = 30.0


def rehearse(
    bundle: Path | Bundle,
    fleet: Fleet,
    options: RehearsalOptions = RehearsalOptions(),  # noqa: B008
    on_progress: OnRehearsal = lambda *_: None,
) -> Rehearsal:
    """Run a bundle on an emulated fleet, and return predicted beside measured.

    Args:
        bundle: Folder of the bundle, or what was read of it.
        fleet: Fleet that its plan is valid for.
        options: Links, compute, images, and devices to take away.
        on_progress: Called with what is done, how much of it, and of how much.

    Raises:
        InputError: If an option is out of range, the test part cannot be read, workers in C cannot be built here, or
            namespaces cannot be made.
        PlannerError: If a worker does not start.
    """
    load = load_average()
    read = opened(bundle)
    test, _ = data.load_test(read.card)
    num_images = len(test) if options.num_images is None else options.num_images
    if num_images < 1:
        raise InputError(f"must be at least 1, got {num_images}.", field="num_images")
    if not options.stand_in:
        _refuse_unless_c_can_be_built(read, fleet)
    outages = Outages(parse_kills(options.kills, [a.device for a in read.plan.assignments]), num_images)
    with ExitStack() as ended:
        network = ended.enter_context(Namespaces(fleet, read.profile, read.plan)) if options.namespaces else None
        work = ended.enter_context(work_folder())
        export_bundle(read, fleet, work / "deploy", stand_in=options.stand_in, on_progress=on_progress)
        expected = _expected(read, fleet, options)
        stage = PreparedRehearsal(read, fleet, test, options, expected, read_deployment(work / "deploy"), load)
        crew = ended.enter_context(Crew(stage.deployment, expected, work, network))
        tally = _answers(stage, crew, outages, num_images, on_progress)
        crew.note_peaks()
        return rehearsal_of(stage, crew, tally, outages)


def _refuse_unless_c_can_be_built(bundle: Bundle, fleet: Fleet) -> None:
    used = {a.device for a in bundle.plan.assignments}
    in_c = [device.name for device in fleet.members if device.name in used and engine_of(device) == "c"]
    if not in_c:
        return
    try:
        check_can_build()
    except InputError as error:
        raise InputError(
            f"{', '.join(in_c)}: sub-models in C are built for a rehearsal. {error} Or have ONNX Runtime stand in "
            f"({setting('stand_in')})."
        ) from None


def _expected(bundle: Bundle, fleet: Fleet, options: RehearsalOptions) -> dict[str, Expectation]:
    plan, profile, latencies = bundle.plan, bundle.profile, None
    if options.namespaces:
        latencies = {name: path.latencies_us for name, path in paths_of(fleet, profile, plan).items()}
    engines: dict[str, Engine] = {m.name: "onnxruntime" if options.stand_in else engine_of(m) for m in fleet.members}
    return expectations(
        plan, profile, measured_compute=options.measured_compute, engines=engines, link_latency_us=latencies
    )


def _answers(
    stage: PreparedRehearsal, crew: Crew, outages: Outages, num_images: int, on_progress: OnRehearsal
) -> Tally:
    """Answer images of the test part, one after the other, until all devices that were taken away are back."""
    tally, images, image = Tally(), stage.test.images, stage.deployment.manifest.input
    with Aggregator(stage.deployment, crew.addresses, deadline_us=stage.deadline_us) as aggregator:
        if missing := aggregator.connect(_CONNECT_S):
            raise PlannerError(f"worker {missing[0]!r} must answer within {_CONNECT_S:.0f} s, it does not.")
        for _ in range(_WARM_UP):
            aggregator.answer(sent_values(images, [0], image)[0])
        until = None
        while len(tally) < num_images or not outages.are_over:
            if len(tally) >= num_images:
                until = until or time.monotonic() + _MAX_AWAY_S
                if time.monotonic() > until:
                    break
            index = len(tally) % len(stage.test)
            sent = sent_values(images, [index], image)[0]
            outages.before(len(tally) + 1, crew)
            answer = aggregator.answer(sent)
            outages.after(answer.missing)
            tally.add(index, answer)
            on_progress("answer", min(len(tally), num_images), num_images)
    return tally
