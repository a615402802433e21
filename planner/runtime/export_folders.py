"""Folders of a deployment: what each device gets, and what the aggregator gets.

The layout is that of `planner.runtime.deployment`; in every folder the manifest is written last.

Legend: ch channels, H height, W width, F features of a device.
"""

import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from planner.errors import InputError
from planner.executor.bundle import Bundle, sub_model_file
from planner.files import sha256_of_file
from planner.network import data
from planner.network.fusion import Fusion
from planner.runtime import deployment as names
from planner.runtime.c_folder import CFolder
from planner.runtime.certificates import Certificate, make_certificate
from planner.runtime.device.names import CERTIFICATE, KEY, MANIFEST, TOKEN
from planner.runtime.engine_folders import EngineFolder, ExpectedAnswers, SubModelFacts
from planner.runtime.export_check import Comparison, compare, sent_values, torch_features
from planner.runtime.onnx_folder import OnnxFolder, npz
from planner.schema import (
    AggregatorManifest,
    Assignment,
    DeployedDevice,
    DeviceManifest,
    Engine,
    ImageInput,
    PlannedCosts,
    Precision,
    to_json,
)
from planner.schema.base import write_bytes, write_text

OnExport = Callable[[str, int, int], None]

_NUM_EXPECTED = 4
_SECRET_BYTES = 32
_ENGINES: dict[Engine, EngineFolder] = {"onnxruntime": OnnxFolder(), "c": CFolder()}


@dataclass(frozen=True)
class Exported:
    """Deployment that was written, with what was measured of it.

    Attributes:
        manifest: Manifest of the aggregator.
        precisions: Precision of each device's sub-model, in the plan's order.
        comparison: Exported sub-models beside torch's, on the test part.
    """

    manifest: AggregatorManifest
    precisions: tuple[Precision, ...]
    comparison: Comparison


@dataclass(frozen=True)
class ExportJob:
    """All that the folders of a deployment are made from."""

    bundle: Bundle
    bundle_sha256: str
    image: ImageInput
    precisions: tuple[Precision, ...]
    engines: tuple[Engine, ...]
    stand_ins: frozenset[str]
    encrypted: frozenset[str]  # devices with the C engine whose worker speaks TLS
    part: Path  # where the deployment is written until it is whole

    def engine(self, position: int) -> EngineFolder:
        """Return the engine of a device, given by its position in the plan."""
        return _ENGINES[self.engines[position]]

    def folder(self, position: int) -> Path:
        """Return the folder of a device: its position in the plan, and as much of its name as a path may hold."""
        return self.part / Path(sub_model_file(position, self.bundle.plan.assignments[position].device)).stem


def write_folders(job: ExportJob, on_progress: OnExport) -> Exported:
    """Write all folders of a deployment."""
    plan, token = job.bundle.plan, secrets.token_hex(_SECRET_BYTES)
    certificates = [
        make_certificate() if engine == "onnxruntime" or a.device in job.encrypted else None
        for a, engine in zip(plan.assignments, job.engines, strict=True)
    ]
    loaded = []
    for i, network in enumerate(job.bundle.sub_models):
        on_progress("export sub-models", i, len(plan.assignments))
        job.engine(i).write_network(network, job.precisions[i], job.image, job.folder(i))
        loaded.append(job.engine(i).load(job.folder(i)))
    on_progress("export sub-models", len(plan.assignments), len(plan.assignments))
    comparison = compare(
        job.bundle,
        loaded,
        job.image,
        job.precisions,
        lambda done, total: on_progress("compare with torch", done, total),
    )
    images = _expected_images(job)
    for i, certificate in enumerate(certificates):
        features_of = loaded[i]
        features = (
            torch_features(job.bundle.sub_models[i], images, job.image) if features_of is None else features_of(images)
        )
        _write_device(job, i, ExpectedAnswers(images, features, are_measured=features_of is not None))
        _write_secrets(job.folder(i), token, certificate)
    return Exported(_write_aggregator(job, token, certificates, comparison), job.precisions, comparison)


def _expected_images(job: ExportJob) -> np.ndarray[Any, Any]:
    """Return some images of the test part, as they are sent, (4, ch, H, W)."""
    test, _ = data.load_test(job.bundle.card)
    chosen = np.linspace(0, len(test) - 1, _NUM_EXPECTED).round().astype(np.int64)
    return sent_values(test.images, chosen, job.image)


def _write_device(job: ExportJob, position: int, expected: ExpectedAnswers) -> None:
    """Write what a device's folder holds beside its network and its secrets, the manifest last."""
    folder, a, engine = job.folder(position), job.bundle.plan.assignments[position], job.engine(position)
    speaks_tls = a.device in job.encrypted
    about = SubModelFacts(a.device, job.bundle_sha256, job.image, job.precisions[position], speaks_tls)
    hashed = engine.write_worker(folder, about, expected)
    manifest = DeviceManifest(
        bundle=job.bundle_sha256,
        device=a.device,
        engine=job.engines[position],
        stand_in=a.device in job.stand_ins,
        model=engine.model,
        precision=job.precisions[position],
        input=job.image,
        features=a.embed_dim,
        planned=_planned(a),
        sha256={name: sha256_of_file(folder / name) for name in hashed},
    )
    write_text(folder / MANIFEST, to_json(manifest))


def _write_secrets(folder: Path, token: str, certificate: Certificate | None) -> None:
    _write_secret(folder / TOKEN, f"{token}\n".encode())
    if certificate is not None:
        _write_secret(folder / KEY, certificate.key)
        write_bytes(folder / CERTIFICATE, certificate.certificate)


def _write_aggregator(
    job: ExportJob, token: str, certificates: Sequence[Certificate | None], comparison: Comparison
) -> AggregatorManifest:
    """Write the aggregator's folder, the manifest last."""
    folder, plan = job.part / names.AGGREGATOR, job.bundle.plan
    write_bytes(folder / names.FUSION, npz(_fusion_arrays(job.bundle.fusion)))
    _write_secret(folder / TOKEN, f"{token}\n".encode())
    devices = []
    for i, (a, certificate) in enumerate(zip(plan.assignments, certificates, strict=True)):
        pinned = None if certificate is None else f"{i:02d}.pem"
        if certificate is not None and pinned is not None:
            write_bytes(folder / names.CERTIFICATES / pinned, certificate.certificate)
        device = DeployedDevice(
            name=a.device,
            folder=job.folder(i).name,
            features=a.embed_dim,
            engine=job.engines[i],
            stand_in=a.device in job.stand_ins,
            planned=_planned(a),
            certificate=pinned,
            manifest_sha256=sha256_of_file(job.folder(i) / MANIFEST),
        )
        devices.append(device)
    manifest = AggregatorManifest(
        bundle=job.bundle_sha256,
        aggregator=plan.fusion.device,
        classes=job.bundle.profile.classes,
        input=job.image,
        devices=tuple(devices),
        fusion_hidden=job.bundle.profile.fusion_hidden,
        fusion_us=plan.fusion.latency_us,
        latency_us=plan.latency_us,
        accuracy=comparison.accuracy,
        sha256={names.FUSION: sha256_of_file(folder / names.FUSION)},
    )
    write_text(folder / MANIFEST, to_json(manifest))
    return manifest


def _planned(a: Assignment) -> PlannedCosts:
    return PlannedCosts(send_us=a.send_us, compute_us=a.compute_us, return_us=a.return_us, memory_bytes=a.memory_bytes)


def _fusion_arrays(fusion: Fusion) -> dict[str, Any]:
    return {name: tensor.numpy().astype(np.float32) for name, tensor in fusion.state_dict().items()}


def _write_secret(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, at no moment anybody else."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}).") from None
