"""Result of a rehearsal: what was predicted, what was measured, and what was held."""

import os
import platform
import subprocess
from collections.abc import Callable, Sequence, Set
from importlib.metadata import version
from pathlib import Path

from planner.rules.cost import device_costs
from planner.runtime.c.host import find_compiler
from planner.runtime.deployment import WORKER
from planner.runtime.rehearsal.bundle_answers import BundleAnswers
from planner.runtime.rehearsal.crew import Crew
from planner.runtime.rehearsal.outages import Outages
from planner.runtime.rehearsal.paths import paths_of
from planner.runtime.rehearsal.predicted import Expectation, whole_us
from planner.runtime.rehearsal.prepared import PreparedRehearsal
from planner.runtime.rehearsal.processes import interpreter_bytes
from planner.runtime.rehearsal.tally import Tally
from planner.runtime.rehearsal.timings import StepTimes, percentiles, read_marks
from planner.schema import Engine, Rehearsal, RehearsedDevice, Step, sha256_of

_MAX_VERSION = 20


def rehearsal_of(stage: PreparedRehearsal, crew: Crew, tally: Tally, outages: Outages) -> Rehearsal:
    """Return a rehearsal's numbers, while the files of its workers are still there."""
    plan, options, manifest = stage.bundle.plan, stage.options, stage.deployment.manifest
    answers = BundleAnswers(stage.bundle, stage.test)
    right, right_in_bundle, differing = tally.compared(answers, stage.test.labels.numpy())
    media = {m for path in paths_of(stage.fleet, stage.bundle.profile, plan).values() for m in path.media}
    whole = whole_us(stage.expected, plan.fusion.latency_us)
    return Rehearsal(
        fleet=stage.fleet.name,
        bundle_sha256=manifest.bundle,
        plan_sha256=sha256_of(plan),
        machine=machine({device.manifest.engine for device in stage.deployment.devices}),
        num_cores=os.cpu_count() or 1,
        load_average=stage.load_average,
        links="namespaces" if options.namespaces else "held",
        compute="measured" if options.measured_compute else "planned",
        num_shared_media=len(media),
        num_images=len(tally),
        deadline_us=stage.deadline_us,
        num_unanswered=tally.num_unanswered(),
        num_late=tally.num_late(stage.deadline_us + plan.fusion.latency_us),
        devices=_devices(stage, crew, tally),
        fusion=Step(predicted_us=plan.fusion.latency_us, measured_us=percentiles(tally.fusions_us())),
        latency=Step(
            predicted_us=whole,
            measured_us=percentiles(tally.latencies_us()),
            held_us=max(sum(e.hold.values()) for e in stage.expected.values()),
        ),
        accuracy=right / len(tally),
        bundle_accuracy=right_in_bundle / len(tally),
        exported_accuracy=manifest.accuracy.exported,
        num_evaluated=len(stage.test),
        num_differing=differing,
        outages=outages.outages(),
    )


def machine(engines: Set[Engine]) -> str:
    """Return this machine and the versions of what runs sub-models of these engines on it, in a line."""
    versions = [platform.machine(), f"Python {platform.python_version()}"]
    if "onnxruntime" in engines:
        versions.append(f"ONNX Runtime {version('onnxruntime')}")
    if "c" in engines:
        compiler = find_compiler()
        told = subprocess.run([compiler, "-dumpversion"], capture_output=True, text=True, check=False).stdout
        versions.append(f"{Path(compiler).name} {told.strip()[:_MAX_VERSION]}")
    return ", ".join(versions)


def _devices(stage: PreparedRehearsal, crew: Crew, tally: Tally) -> tuple[RehearsedDevice, ...]:
    python = [device.path / WORKER for device in stage.deployment.devices if device.manifest.engine == "onnxruntime"]
    interpreter = interpreter_bytes(python[0]) if python else None
    overheads = {c.name: c.runtime_overhead_bytes for c in device_costs(stage.bundle.profile, stage.fleet)}
    found = []
    for a, folder in zip(stage.bundle.plan.assignments, stage.deployment.devices, strict=True):
        times = tally.steps(a.device, read_marks(crew.marks(a.device)))
        expected = stage.expected[a.device]
        compute_us = expected.hold.get("compute")
        found.append(
            RehearsedDevice(
                device=a.device,
                engine=folder.manifest.engine,
                stand_in=folder.manifest.stand_in,
                precision=folder.manifest.precision,
                num_replies=tally.num_replies(a.device),
                send=_step(expected, "send", expected.send_us, times, lambda t: t.send),
                compute=_step(expected, "compute", expected.compute_us, times, lambda t: t.compute),
                returned=_step(expected, "return", expected.return_us, times, lambda t: t.returned),
                latency=Step(
                    predicted_us=expected.latency_us,
                    measured_us=percentiles([t.latency for t in times]),
                    held_us=sum(expected.hold.values()),
                ),
                network_us=percentiles([t.network for t in times]),
                num_overruns=0 if compute_us is None else sum(t.network > compute_us for t in times),
                planned_memory_bytes=a.memory_bytes,
                planned_runtime_bytes=overheads[a.device],
                peak_bytes=crew.peak_bytes(a.device),
                interpreter_bytes=interpreter if folder.manifest.engine == "onnxruntime" else None,
            )
        )
    return tuple(found)


def _step(
    expected: Expectation,
    name: str,
    predicted_us: int | None,
    times: Sequence[StepTimes],
    of: Callable[[StepTimes], float],
) -> Step:
    return Step(
        predicted_us=predicted_us, measured_us=percentiles([of(t) for t in times]), held_us=expected.hold.get(name, 0)
    )
