"""A bundle of random weights: ViT-Tiny-sized sub-models for boards, to rehearse what a plan of them takes."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from planner.executor.bundle import planned_shape, write_bundle
from planner.library import folder
from planner.network.checkpoint import whole_shape
from planner.network.fusion import fresh_fusion
from planner.network.vit import VisionTransformer
from planner.profiler.build import build_profile
from planner.profiler.options import ProfileOptions
from planner.schema import Fleet, Goal, ModelCard, Profile, read_document, write_document
from planner.schema.base import write_bytes
from planner.solver import solve

NUM_CLASSES, _IMAGES_PER_CLASS = 10, 4
FLEET = Fleet.model_validate(
    {
        "name": "four Pi 4B",
        "aggregator": "pi-1",
        "devices": [{"name": "pi", "count": 4, "kind": "raspberry-pi-4b", "memory_budget": "512MiB"}],
        "default_link": {"bandwidth_mbps": 94.0, "latency_ms": 0.4},
    }
)


def make_random_bundle(folder_: Path, model: str = "vit_tiny_patch16_224") -> tuple[Path, Profile]:
    """Write a bundle whose sub-models have the sizes of a plan and random weights, and return it with its profile.

    Args:
        folder_: Folder for card, weights, images and bundle.
        model: Shipped card whose sizes they have.
    """
    card = _card(folder_, model)
    costs = build_profile(str(folder_ / "card.json"), folder_ / "work", ProfileOptions(max_trials=0))
    weights = _random(VisionTransformer(whole_shape(card)), 0)
    content = save(weights.state_dict())
    write_bytes(folder_ / "weights.safetensors", content)
    digest = hashlib.sha256(content).hexdigest()
    written = card.replace(weights="weights.safetensors", weights_sha256=digest)
    write_document(folder_ / "card.json", written)
    profile = costs.replace(weights_sha256=digest)
    plan = solve(profile, FLEET, Goal(min_retention=0.4, apart=(("0", "1", "2", "3"),)))
    sub_models = [
        _random(VisionTransformer(planned_shape(card, profile, a)), i) for i, a in enumerate(plan.assignments)
    ]
    features = torch.randn(64, sum(a.embed_dim for a in plan.assignments), generator=torch.Generator().manual_seed(0))
    fusion = fresh_fusion(features, [a.embed_dim for a in plan.assignments], profile.fusion_hidden, NUM_CLASSES, seed=0)
    provenance: Mapping[str, str | int] = {
        "model": str(folder_ / "card.json"),
        "recipe": "default",
        "epochs": 0,
        "seed": 0,
        "teacher_sha256": digest,
    }
    write_bundle(folder_ / "bundle", plan, profile, provenance, sub_models, fusion)
    return folder_ / "bundle", profile


def _card(folder_: Path, model: str) -> ModelCard:
    """Write the card of a model with few classes and random images, and return it."""
    shipped = read_document(folder("models") / model / "card.json", ModelCard)
    fields = shipped.model_dump(mode="json")
    height, width = shipped.architecture.image_sides
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(NUM_CLASSES), _IMAGES_PER_CLASS)
    for part in ("train", "test"):
        images = rng.integers(0, 256, (len(labels), height, width, shipped.architecture.in_channels), dtype=np.uint8)
        np.savez(folder_ / f"{part}.npz", images=images, labels=labels)
    fields |= {
        "classes": NUM_CLASSES,
        "data": {"source": "npz", "train": "train.npz", "test": "test.npz"},
        "preprocessing": {"scale": 1 / 255, "mean": [0.5] * 3, "std": [0.5] * 3},
    }
    card = ModelCard.model_validate(fields)
    write_document(folder_ / "card.json", card)
    return card


def _random(model: VisionTransformer, seed: int) -> VisionTransformer:
    """Return a network with weights and biases drawn at random: equal ones would be stored only once."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.02, generator=generator)
    return model.eval()
