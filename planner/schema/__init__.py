"""File formats as frozen data, validated as they are read."""

from planner.schema.architecture import Architecture
from planner.schema.base import Frozen, read_document, sha256_of, to_json, write_document
from planner.schema.bundle import Manifest
from planner.schema.card import ModelCard, Origin, TrainingRecord, numbered_classes
from planner.schema.data import (
    AudioArrays,
    AudioFolders,
    Data,
    IdxFiles,
    ImageFolders,
    NpzFiles,
    Preprocessing,
    SklearnDigits,
    Spectrogram,
    StoredPart,
    is_audio,
)
from planner.schema.deployment import (
    AggregatorManifest,
    DeployedDevice,
    DeviceManifest,
    ExportedAccuracy,
    ImageInput,
    InputDtype,
    PlannedCosts,
)
from planner.schema.error_messages import did_you_mean
from planner.schema.evaluation import Evaluation, Size
from planner.schema.fleet import BYTES_PER_PARAM, Device, DeviceKind, Engine, Fleet, Link, LinkSpeed, Precision
from planner.schema.formats import DOCUMENTS, json_schema
from planner.schema.goal import Goal, GoalFile, Method, Objective
from planner.schema.plan import Assignment, FusionCost, Plan, PredictedAccuracy, SolverRun, SubModel
from planner.schema.probe import (
    ProbeDevice,
    ProbeFailure,
    ProbeFile,
    ProbeManifest,
    ProbeNetwork,
    ProbeResult,
    ProbeTiming,
)
from planner.schema.profile import AccuracyModel, Importance, LatencyRow, Profile, Width
from planner.schema.rehearsal import Outage, Percentiles, Rehearsal, RehearsedDevice, Step
from planner.schema.scenario import TODAY, GoalChanges, Quantity, ScenarioEntry, ScenarioFile, SettingChange

__all__ = [
    "BYTES_PER_PARAM",
    "DOCUMENTS",
    "TODAY",
    "AccuracyModel",
    "AggregatorManifest",
    "Architecture",
    "Assignment",
    "AudioArrays",
    "AudioFolders",
    "Data",
    "DeployedDevice",
    "Device",
    "DeviceKind",
    "DeviceManifest",
    "Engine",
    "Evaluation",
    "ExportedAccuracy",
    "Fleet",
    "Frozen",
    "FusionCost",
    "Goal",
    "GoalChanges",
    "GoalFile",
    "IdxFiles",
    "ImageFolders",
    "ImageInput",
    "Importance",
    "InputDtype",
    "LatencyRow",
    "Link",
    "LinkSpeed",
    "Manifest",
    "Method",
    "ModelCard",
    "NpzFiles",
    "Objective",
    "Origin",
    "Outage",
    "Percentiles",
    "Plan",
    "PlannedCosts",
    "Precision",
    "PredictedAccuracy",
    "Preprocessing",
    "ProbeDevice",
    "ProbeFailure",
    "ProbeFile",
    "ProbeManifest",
    "ProbeNetwork",
    "ProbeResult",
    "ProbeTiming",
    "Profile",
    "Quantity",
    "Rehearsal",
    "RehearsedDevice",
    "ScenarioEntry",
    "ScenarioFile",
    "SettingChange",
    "Size",
    "SklearnDigits",
    "SolverRun",
    "Spectrogram",
    "Step",
    "StoredPart",
    "SubModel",
    "TrainingRecord",
    "Width",
    "did_you_mean",
    "is_audio",
    "json_schema",
    "numbered_classes",
    "read_document",
    "sha256_of",
    "to_json",
    "write_document",
]
