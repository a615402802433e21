"""The words of the planner as frozen data, and their files."""

from planner.schema.base import Frozen, nearest, read_document, sha256_of, to_json, write_document
from planner.schema.card import Architecture, ModelCard
from planner.schema.evaluation import Evaluation, Size
from planner.schema.fleet import BYTES_PER_PARAM, Device, DeviceKind, Fleet, Link, LinkSpeed, Precision
from planner.schema.goal import Goal, GoalFile, Method, Objective
from planner.schema.plan import Assignment, FusionCost, Plan, SolverRun, SubModel
from planner.schema.probe import (
    ProbeDevice,
    ProbeFailure,
    ProbeFile,
    ProbeManifest,
    ProbeNetwork,
    ProbeResult,
    ProbeTiming,
)
from planner.schema.profile import Importance, LatencyRow, Profile, Recovery, Width

__all__ = [
    "BYTES_PER_PARAM",
    "Architecture",
    "Assignment",
    "Device",
    "DeviceKind",
    "Evaluation",
    "Fleet",
    "Frozen",
    "FusionCost",
    "Goal",
    "GoalFile",
    "Importance",
    "LatencyRow",
    "Link",
    "LinkSpeed",
    "Method",
    "ModelCard",
    "Objective",
    "Plan",
    "Precision",
    "ProbeDevice",
    "ProbeFailure",
    "ProbeFile",
    "ProbeManifest",
    "ProbeNetwork",
    "ProbeResult",
    "ProbeTiming",
    "Profile",
    "Recovery",
    "Size",
    "SolverRun",
    "SubModel",
    "Width",
    "nearest",
    "read_document",
    "sha256_of",
    "to_json",
    "write_document",
]
