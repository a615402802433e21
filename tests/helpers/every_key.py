"""Documents in which every key of their format is given, also those that most files leave out."""

import json
from typing import Any

from planner.library import folder
from planner.schema import Rehearsal, to_json
from tests.helpers.common import DEVICES, ROOT, Json
from tests.helpers.drawn_plan import drawn_plan
from tests.helpers.pencil import ACCURACY_MODEL, fleet_data, profile_data
from tests.helpers.rehearsals import rehearsal
from tests.helpers.timed_networks import result_data

GOAL: Json = {
    "objective": "latency",
    "max_accuracy_drop": None,
    "min_retention": 0.3,
    "max_latency_ms": 50.0,
    "max_energy_mj": 500.0,
    "survive": 0,
    "pin": {"a": ["gateway"]},
    "forbid": {"b": ["near"]},
    "together": [],
    "apart": [["a", "b"]],
    "leave_out": ["far"],
    "leave_idle": False,
    "method": "exact",
}
GOAL_OF_ACCURACY: Json = {
    "objective": "accuracy",
    "max_accuracy_drop": 0.2,
    "accuracy_confidence": 0.8,
    "max_latency_ms": 50.0,
    "together": [["a", "b"]],
}
_DEVICE: Json = {
    "name": "new",
    "kind": "esp32-s3",
    "count": 1,
    "memory_budget": "512KiB",
    "runtime_overhead": "48KiB",
    "storage_budget": "4MiB",
    "storage_overhead": "12KiB",
    "macs_per_second": 1e8,
    "active_power_w": 0.5,
    "engine": "c",
    "precision": "int8",
    "address": "board.local:7000",
}
_LINK: Json = {"between": ["gateway", "new"], "bandwidth_mbps": 1, "latency_ms": 2, "shared": "air"}
SCENARIOS: Json = {
    "scenarios": [
        {
            "name": "a",
            "drop": ["far"],
            "add": {"esp32-s3": 2},
            "devices": [_DEVICE | {"precision": ["float32", "int8"]}],
            "set": {"gateway.memory_budget": "512KiB"},
            "scale": {"memory": 0.5},
            "goal": GOAL | {"leave_out": [], "survive": 1},
            "links": [_LINK, {"between": ["gateway", "near"], "bandwidth_mbps": 1, "latency_ms": 2}],
        },
        {"name": "b", "goal": GOAL_OF_ACCURACY | {"min_retention": None}},
    ]
}

_CARD: Json = json.loads((folder("models") / "digits-vit" / "card.json").read_text())
_SQUARE: Json = _CARD["architecture"]
_CARD_OF_IMAGES: Json = _CARD | {
    "architecture": _SQUARE
    | {
        "image_size": [8, 12],
        "patch_size": [2, 4],
        "class_token": False,
        "distilled": False,
        "register_tokens": 2,
        "pooling": "mean",
        "norm_after_pooling": True,
        "norm_before_blocks": True,
        "activation": "silu",
        "gated_mlp": True,
        "qk_norm": "rms_norm",
        "layer_norm_eps": 1e-5,
    },
    "classes": 10,
    "data": {
        "source": "folder",
        "train": "train",
        "validation": "validation",
        "test": "test",
        "folders_by_number": True,
    },
    "preprocessing": _CARD["preprocessing"] | {"resize": "letterbox"},
    "training": _CARD["training"] | {"mirror": True},
    "parameter_names": {"blocks.{l}.attn.qkv.weight": ["q.{l}.weight", "k.{l}.weight", "v.{l}.weight"]},
    "origin": {"file": "model.pth", "sha256": "0" * 64},
}
# A Compact Transformer: a stem with max pooling, and norms between the halves of its blocks.
_CARD_WITH_STEM: Json = _CARD | {
    "architecture": _SQUARE
    | {
        "image_size": 32,
        "patch_size": [4, 4],
        "stem_channels": [32, 64],
        "stem_kernel": 7,
        "stem_stride": 1,
        "stem_max_pool": True,
        "norm_between_halves": True,
        "class_token": False,
        "pooling": "sequence",
    },
    "data": {
        "source": "idx",
        **{
            f"{part}_{what}": f"{part}-{what}"
            for part in ("train", "validation", "test")
            for what in ("images", "labels")
        },
    },
    "preprocessing": _CARD["preprocessing"] | {"resize": [36, 40]},
}
_ARRAYS: Json = {"source": "npz", "train": "t.npz", "test": "e.npz", "images_key": "x", "labels_key": "y"}
_SOUNDS: Json = {
    "source": "audio-npz",
    "train": "t.npz",
    "validation": "v.npz",
    "test": "e.npz",
    "samples_key": "x",
    "labels_key": "y",
    "spectrogram": {"sample_rate": 16_000, "window_ms": 25.0, "hop_ms": 10.0},
}


def _profile() -> Json:
    """Return the pencil profile as one of a gated Compact Transformer, timed in both engines."""
    data = profile_data()
    (row,) = data["latency"]["board"]
    embedding = {
        "channels": [3, 8],
        "image_size": [8, 8],
        "patch_size": [1, 1],
        "norm_before_blocks": True,
        "stem_kernel": 5,
        "stem_stride": 1,
        "stem_max_pool": True,
    }
    in_c = row | {"engine": "c", "precision": "int8", "last_head_us": 1.0, "last_channel_us": 0.4}
    return data | {
        "embedding": embedding,
        "gated_mlp": True,
        "qk_norm": "layer_norm",
        "norm_between_halves": True,
        "has_sequence_pooling": True,
        "widths": [width | {"head_padding_bytes": 4, "channel_padding_bytes": 2} for width in data["widths"]],
        "embed_dim_order": list(range(8)),
        "latency": {"board": [row, in_c | {"mape": 0.05, "p95_error": 0.1, "source": "paper"}]},
        "accuracy_model": ACCURACY_MODEL | {"union_weight": 0.2, "num_images": 100, "gained": 0.01},
        "precision_retention": {"int8": [0.9, 1.0]},
        "provenance": {"importance": "paper"},
    }


def _plan() -> Json:
    """Return the drawn plan with a prediction, and with the engines of its sub-models."""
    data: Json = json.loads(to_json(drawn_plan()))
    predicted = {"accuracy": 0.95, "loss": 0.02, "low": 0.9, "high": 0.97, "epochs": 10.0}
    first, *others = data["assignments"]
    return data | {
        "assignments": [first | {"precision": "int8", "engine": "c", "storage_bytes": 900, "energy_mj": 1.0}, *others],
        "predicted_accuracy": predicted,
    }


def _devices() -> Json:
    """Return the pencil fleet with a microcontroller, whose flash is budgeted."""
    data = fleet_data()
    link = {"between": ["gateway", "new"], "bandwidth_mbps": 1, "latency_ms": 2, "shared": "air"}
    return data | {
        "devices": [*data["devices"], _DEVICE],
        "links": [*data["links"], link],
        "default_link": {"bandwidth_mbps": 1.0, "latency_ms": 1.0, "shared": True},
    }


def _rehearsal() -> Json:
    """Return the rehearsal on paper, with a worker that was killed."""
    outage = {"device": "far", "killed_before": 5, "restarted_before": 9, "num_without": 4, "back_s": 0.5}
    read: Rehearsal = rehearsal(outages=[outage], load_average=0.5)
    data: Json = read.model_dump(mode="json")
    return data


def _timings() -> Json:
    """Return the synthetic timings as ones of gated networks in C, of which one could not be run."""
    data = result_data()
    more = {"engine": "c", "num_pooled_tokens": 1, "gated_mlp": True, "qk_norm": "rms_norm"}
    timed, *others = data["timings"]
    failed = {key: timed[key] for key in ("network", "precision", "threads")} | {"reason": "no memory"}
    return data | {
        "device": data["device"] | {"compiler": "cc 14"},
        "manifest": data["manifest"] | more,
        "timings": others,
        "failures": [failed],
    }


def _evaluation() -> Json:
    size = {"params": 10, "macs": 20}
    return {
        "num_images": 5,
        "num_calibration_images": 5,
        "whole_accuracy": 0.9,
        "fused_accuracy": 0.8,
        "whole_by_class": {"a": 0.9, "b": 0.9},
        "fused_by_class": {"a": 0.8, "b": 0.8},
        "without_device": {"far": 0.5},
        "without_device_by_class": {"far": {"a": 0.5, "b": 0.5}},
        "whole": size,
        "devices": {"far": size},
    }


_BUNDLE: Json = {
    "model": "digits-vit",
    "recipe": "default",
    "epochs": 1.5,
    "seed": 0,
    "teacher_sha256": "0" * 64,
    "subset_teachers": True,
    "devices": {"a": "devices/00-a.safetensors"},
    "sha256": {"plan.json": "0" * 64},
}


def documents() -> dict[str, tuple[str, Json]]:
    """Return each document with the name of its format; together those of a format have all of its keys."""
    kind: Any = json.loads((ROOT / "profiles" / "devices" / "esp32-s3.json").read_text())
    of_format: dict[str, tuple[str, Json]] = {
        "devices": ("devices", _devices()),
        "demo": ("devices", json.loads(DEVICES.read_text())),
        "goal": ("goal", GOAL),
        "goal-accuracy": ("goal", GOAL_OF_ACCURACY),
        "scenarios": ("scenarios", SCENARIOS),
        "plan": ("plan", _plan()),
        "profile": ("profile", _profile()),
        "card": ("card", _CARD),
        "card-images": ("card", _CARD_OF_IMAGES),
        "card-stem": ("card", _CARD_WITH_STEM),
        "card-arrays": ("card", _CARD | {"data": _ARRAYS}),
        "card-sounds": ("card", _CARD | {"data": _SOUNDS}),
        "kind": ("kind", kind),
        "bundle": ("bundle", _BUNDLE),
        "evaluation": ("evaluation", _evaluation()),
        "rehearsal": ("rehearsal", _rehearsal()),
        "timings": ("timings", _timings()),
        "probes": ("probes", _timings()["manifest"]),
    }
    heads = {
        name: {"$schema": f"{format_}.schema.json", "schema_version": 1} for name, (format_, _) in of_format.items()
    }
    return {name: (format_, heads[name] | data) for name, (format_, data) in of_format.items()}
