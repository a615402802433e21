"""File formats as frozen data, validated as they are read."""

from planner.schema.base import Frozen, read_document, sha256_of, to_json, write_document
from planner.schema.bundle import Manifest
from planner.schema.card import Architecture, ModelCard, Origin, TrainingRecord, numbered_classes
from planner.schema.data import Data, IdxFiles, ImageFolders, NpzFiles, Preprocessing, SklearnDigits, StoredPart
from planner.schema.error_messages import did_you_mean
from planner.schema.evaluation import Evaluation, Size
from planner.schema.fleet import BYTES_PER_PARAM, Device, DeviceKind, Fleet, Link, LinkSpeed, Precision
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
from planner.schema.scenario import TODAY, GoalChanges, Quantity, ScenarioEntry, ScenarioFile, SettingChange

__all__ = [
    "BYTES_PER_PARAM",
    "DOCUMENTS",
    "TODAY",
    "AccuracyModel",
    "Architecture",
    "Assignment",
    "Data",
    "Device",
    "DeviceKind",
    "Evaluation",
    "Fleet",
    "Frozen",
    "FusionCost",
    "Goal",
    "GoalChanges",
    "GoalFile",
    "IdxFiles",
    "ImageFolders",
    "Importance",
    "LatencyRow",
    "Link",
    "LinkSpeed",
    "Manifest",
    "Method",
    "ModelCard",
    "NpzFiles",
    "Objective",
    "Origin",
    "Plan",
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
    "ScenarioEntry",
    "ScenarioFile",
    "SettingChange",
    "Size",
    "SklearnDigits",
    "SolverRun",
    "StoredPart",
    "SubModel",
    "TrainingRecord",
    "Width",
    "did_you_mean",
    "json_schema",
    "numbered_classes",
    "read_document",
    "sha256_of",
    "to_json",
    "write_document",
]
