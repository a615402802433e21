"""Options of the command line with their help, each defined once for all commands."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from planner.file_formats import FILE_FORMATS


class MethodName(str, Enum):
    """Planning method."""

    exact = "exact"
    random_equal = "random-equal"
    greedy = "greedy"
    memory_proportional = "memory-proportional"


class ObjectiveName(str, Enum):
    """Objective of a plan."""

    latency = "latency"
    accuracy = "accuracy"
    energy = "energy"
    devices = "devices"


class EngineName(str, Enum):
    """Engine of a device."""

    onnxruntime = "onnxruntime"
    c = "c"


class AgainstName(str, Enum):
    """Quantity that latency is set against."""

    accuracy = "accuracy"
    memory = "memory"
    energy = "energy"


Format = Annotated[
    str,
    typer.Argument(metavar="FORMAT", help=f"Format of the file: {', '.join(FILE_FORMATS)}."),
]
Devices = Annotated[Path, typer.Option("--devices", "-d", help="The fleet: a devices.json.")]
ProfileName = Annotated[str, typer.Option("--profile", "-p", help="A shipped profile's name, or a profile.json.")]
BundleFolder = Annotated[Path, typer.Argument(help="A bundle's folder.", metavar="BUNDLE")]
PlanFile = Annotated[Path, typer.Argument(help="A plan.json.", metavar="PLAN")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Seed = Annotated[int, typer.Option(help="Seed of all random draws.", min=0)]

# --- goal ---

GoalPath = Annotated[Path | None, typer.Option("--goal", help="A goal.json; flags win over it.")]
ObjectiveOption = Annotated[
    ObjectiveName | None,
    typer.Option(help="Least latency (the default), highest accuracy, least energy, or fewest devices."),
]
MaxAccuracyDrop = Annotated[
    float | None, typer.Option(help="Fused accuracy that may be lost, 0.02 for 2 points.  [default: 0.02]")
]
AccuracyConfidence = Annotated[
    float | None,
    typer.Option(help="How certainly no more is lost, 0.9 for nine plans in ten.  [default: the prediction itself]"),
]
MinRetention = Annotated[
    float | None, typer.Option(help="One retention floor for all classes, instead of an accuracy drop.")
]
MaxLatencyMs = Annotated[float | None, typer.Option(help="Largest latency of the fleet [ms].")]
MaxEnergyMj = Annotated[float | None, typer.Option(help="Largest energy of one image on all devices [mJ].")]
Survive = Annotated[int | None, typer.Option(help="Devices that may be lost with every class still served.")]
Pins = Annotated[list[str] | None, typer.Option("--pin", help="CLASS=DEVICE: the device must serve it. Repeatable.")]
Forbids = Annotated[
    list[str] | None, typer.Option("--forbid", help="CLASS=DEVICE: the device must not serve it. Repeatable.")
]
Together = Annotated[list[str] | None, typer.Option(help="A,B: a device serves all of them or none. Repeatable.")]
Apart = Annotated[list[str] | None, typer.Option(help="A,B: a device serves at most one of them. Repeatable.")]
LeaveOut = Annotated[list[str] | None, typer.Option(help="A device that gets no sub-model. Repeatable.")]
LeaveIdle = Annotated[bool, typer.Option("--leave-idle", help="Use no device that the objective does not need.")]
Start = Annotated[
    Path | None, typer.Option(help="An earlier plan: stay as near to it as the objective allows, say what moves.")
]

# --- solver ---

MethodOption = Annotated[MethodName | None, typer.Option(help="exact (the default), or a baseline to compare with.")]
TimeLimit = Annotated[float, typer.Option(help="Seconds, after which the best plan so far is taken.", min=0)]
Deterministic = Annotated[
    bool, typer.Option("--deterministic", help="Count work instead of seconds: the same plan every time.")
]

# --- execution ---

RecipeName = Annotated[str, typer.Option("--recipe", help="Recovery: default, ed-vit or devit.")]
Epochs = Annotated[
    float | None,
    typer.Option(
        help="How often each sub-model sees as many images as there are, 0: least squares alone.  [default: 10]", min=0
    ),
]
Minutes = Annotated[
    float | None, typer.Option(help="Instead of epochs: as many as a short trial says will fit, perhaps a part of one.")
]
Jobs = Annotated[
    int | None, typer.Option(help="Sub-models retrained side by side, each on a core.  [default: all cores]", min=1)
]
Scheduler = Annotated[
    str | None, typer.Option(help="A Dask scheduler, tcp://host:port or tls://host:port: its workers retrain.")
]
TlsCa = Annotated[Path | None, typer.Option(help="For a tls scheduler: who vouches for it, a PEM file.")]
TlsCert = Annotated[Path | None, typer.Option(help="For a tls scheduler: our certificate, a PEM file.")]
TlsKey = Annotated[Path | None, typer.Option(help="For a tls scheduler: our private key, a PEM file.")]
TrainOn = Annotated[str, typer.Option("--device", help="Where to train: cpu, cuda, or cuda:0 and so on.")]
Teacher = Annotated[
    str | None,
    typer.Option(
        help="The card of another whole model to learn from, if not from the model itself; or subset: the model, "
        "fine-tuned for the classes of each device before."
    ),
]

# --- what-if ---

StartPlan = Annotated[
    Path | None, typer.Option("--start", help="The plan that runs today, its goal included.  [default: it is solved]")
]
Drops = Annotated[list[str] | None, typer.Option("--drop", help="NAME, or A,B at once: lost. Repeatable.")]
DropEach = Annotated[bool, typer.Option("--drop-each", help="Each single device lost, one at a time (N-1).")]
Adds = Annotated[
    list[str] | None,
    typer.Option(
        "--add",
        help="KIND, KIND=COUNT or a device of the fleet: one more, like the first of it there. A new kind has its "
        "card's memory and storage and the default link, or the slowest of the aggregator's. Repeatable.",
    ),
]
AddEach = Annotated[list[str] | None, typer.Option(help="KIND,KIND,...: one more of each, one at a time. Repeatable.")]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="NAME.KEY=VALUE: a key of a device, bandwidth_mbps or latency_ms of its links or of default_link; or "
        "aggregator=NAME. Repeatable.",
    ),
]
Scales = Annotated[
    list[str] | None,
    typer.Option(
        "--scale",
        help="memory, storage, bandwidth or latency = factors, 0.5..2.0/7 (seven of them) or 0.5,1,2. Repeatable.",
    ),
]
Sweeps = Annotated[
    list[str] | None,
    typer.Option("--sweep", help="A key of the goal = values, such as max-accuracy-drop=0.01,0.05. Repeatable."),
]
ScenariosPath = Annotated[Path | None, typer.Option("--scenarios", help="A scenarios.json: changes with names.")]
Cross = Annotated[bool, typer.Option("--cross", help="Every combination instead of one change at a time.")]
Csv = Annotated[bool, typer.Option("--csv", help="Print CSV instead of a table.")]
Solvers = Annotated[
    int | None,
    typer.Option("--jobs", help="Scenarios solved side by side, each on a core.  [default: all cores]", min=1),
]
SolvingScheduler = Annotated[
    str | None,
    typer.Option("--scheduler", help="A Dask scheduler, tcp://host:port or tls://host:port: its workers solve."),
]
