"""File formats by name: the class of `planner.schema`, the usual file name, who writes the file and who reads it.

The table imports nothing of the package, so that `planner schema --help` lists the names without the slow import of the
classes.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class FileFormat:
    """A file format: name of its class in `planner.schema`, usual name of its files, and their use."""

    document: str
    file: str
    use: str


FILE_FORMATS = {
    "devices": FileFormat("Fleet", "devices.json", "You write it; `planner solve --devices` and most others read it."),
    "goal": FileFormat(
        "GoalFile", "goal.json", "You write it; `planner solve --goal` reads it, and flags win over it."
    ),
    "scenarios": FileFormat("ScenarioFile", "scenarios.json", "You write it; `planner what-if --scenarios` reads it."),
    "plan": FileFormat("Plan", "plan.json", "`planner solve --out` writes it; `check`, `show` and `execute` read it."),
    "profile": FileFormat("Profile", "profile.json", "`planner profile` writes it; `--profile` reads it."),
    "card": FileFormat(
        "ModelCard", "card.json", "`planner import` writes it, you add the data; `profile` and `execute` read it."
    ),
    "kind": FileFormat("DeviceKind", "profiles/devices/KIND.json", "Comes along; a device's `kind` names it."),
    "bundle": FileFormat(
        "Manifest", "bundle/manifest.json", "`planner execute` writes it; `planner evaluate` checks all files by it."
    ),
    "deployment": FileFormat(
        "AggregatorManifest",
        "deploy/aggregator/manifest.json",
        "`planner export` writes it; `serve` and `deploy` check all files by it.",
    ),
    "device-folder": FileFormat(
        "DeviceManifest",
        "deploy/NN-NAME/manifest.json",
        "`planner export` writes it; the worker checks its files by it.",
    ),
    "evaluation": FileFormat("Evaluation", "evaluation.json", "`planner evaluate --json` prints it."),
    "rehearsal": FileFormat(
        "Rehearsal", "rehearsal.json", "`planner rehearse --out` writes it; `planner report --rehearsal` shows it."
    ),
    "probes": FileFormat(
        "ProbeManifest", "probes/manifest.json", "`planner probe make` writes it; it is part of what a device prints."
    ),
    "timings": FileFormat("ProbeResult", "latency.json", "A device writes or prints it; `planner probe add` reads it."),
}
