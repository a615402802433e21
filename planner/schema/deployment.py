"""manifest.json of a deployment: one in each device's folder, and one in the aggregator's.

Shapes: C classes, ch channels, H height and W width of an image.
"""

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from planner.schema.base import Document, Frozen
from planner.schema.data import Preprocessing, Spectrogram
from planner.schema.fleet import Engine, Precision
from planner.schema.quantities import MAX_CLASSES, FusionHidden, Microseconds, NumBytes
from planner.schema.text import FileName, Name, Sha256, check_names_differ

InputDtype = Literal["uint8", "float16", "float32"]
BYTES_PER_VALUE: dict[InputDtype, int] = {"uint8": 1, "float16": 2, "float32": 4}

# A message holds an image and its number; longer ones are refused by either side.
MAX_IMAGE_BYTES = 64 * 2**20 - 1024
MAX_FEATURES = 2**20


class ImageInput(Frozen):
    """Image as it is sent to a device: values of pixels as they are stored, which the network normalises itself."""

    shape: tuple[
        Annotated[int, Field(ge=1, le=1024)],
        Annotated[int, Field(ge=1, le=65_535)],
        Annotated[int, Field(ge=1, le=65_535)],
    ]
    """Channels, height and width (ch, H, W)."""
    dtype: InputDtype
    """Type of each value; little-endian."""
    preprocessing: Preprocessing
    """Preprocessing of the pixels: scale, mean and std are in the network; `resize` is to be done before sending."""

    # Left out where there is none, so that other manifests stay as they are.
    spectrogram: Spectrogram | None = Field(None, exclude_if=lambda spectrogram: spectrogram is None)
    """Spectrogram that the image is, made of a sound before sending; null: the image is none."""

    @property
    def num_bytes(self) -> int:
        """Size of one image [bytes]."""
        return math.prod(self.shape) * BYTES_PER_VALUE[self.dtype]

    @model_validator(mode="after")
    def _fits_a_message(self) -> "ImageInput":
        if self.num_bytes > MAX_IMAGE_BYTES:
            raise ValueError(f"shape: an image must take at most {MAX_IMAGE_BYTES} bytes, got {self.num_bytes}")
        channels, height, width = self.shape
        if self.spectrogram is not None:
            self.spectrogram.check_size(height, width)
            if (channels, self.dtype) != (1, "float32"):
                raise ValueError(f"spectrogram: must be one channel of float32, got {channels} of {self.dtype}")
        for key in ("mean", "std"):
            if (got := len(getattr(self.preprocessing, key))) != channels:
                raise ValueError(f"preprocessing: {key} must have an entry for each of {channels} channels, got {got}")
        return self


class PlannedCosts(Frozen):
    """Costs of one image on a device, as planned."""

    send_us: Microseconds
    """Time until the device has the image [us]; 0 on the aggregator."""
    compute_us: Microseconds
    """Compute time of the sub-model [us]."""
    return_us: Microseconds
    """Time until the aggregator has the features [us]; 0 on the aggregator."""
    memory_bytes: NumBytes
    """Weights, peak activations and runtime overhead [bytes]."""

    @property
    def latency_us(self) -> int:
        """Latency of one image on this device: send, compute, return [us]."""
        return self.send_us + self.compute_us + self.return_us


class DeviceManifest(Document):
    """Content of one device's folder: what its worker runs, and what was planned for it."""

    bundle: Sha256
    """SHA-256 of the manifest of the bundle that was exported."""
    device: Name
    """Name of the device in the plan."""
    engine: Engine = "onnxruntime"
    """Engine that runs the sub-model."""
    stand_in: bool = False
    """True if ONNX Runtime stands in for the C engine that the board needs: for a rehearsal, not for the board."""
    model: FileName = "model.onnx"
    """File of the sub-model: its graph with the weights beside it, or its code in C."""
    precision: Precision = "float32"
    """Precision of the weights."""
    input: ImageInput
    """Image as the device gets it."""
    features: int = Field(ge=1, le=MAX_FEATURES)
    """Number of features that the sub-model returns, its embed dim."""
    threads: int = Field(1, ge=1, le=1024)
    """Number of threads for one image, as the plan counts."""
    planned: PlannedCosts
    """Costs of one image, as planned."""
    sha256: dict[FileName, Sha256]
    """SHA-256 of each other file of the folder but the secrets; a file that does not match is refused."""

    @model_validator(mode="after")
    def _names_the_model(self) -> "DeviceManifest":
        if self.model not in self.sha256:
            raise ValueError(f"sha256: must name the model {self.model!r}, got {sorted(self.sha256)}")
        return self


class DeployedDevice(Frozen):
    """Device of a deployment, as the aggregator sees it."""

    name: Name
    """Name of the device in the plan."""
    folder: FileName
    """Folder of the device, beside the aggregator's."""
    features: int = Field(ge=1, le=MAX_FEATURES)
    """Number of features that it returns."""
    engine: Engine = "onnxruntime"
    """Engine that runs its sub-model."""
    stand_in: bool = False
    """True if ONNX Runtime stands in for the C engine that the board needs."""
    planned: PlannedCosts
    """Costs of one image, as planned."""
    certificate: FileName | None = None
    """File of the device's certificate among the aggregator's certificates; null for a worker in C without TLS."""
    manifest_sha256: Sha256
    """SHA-256 of the manifest in the device's folder."""

    @model_validator(mode="after")
    def _has_a_certificate(self) -> "DeployedDevice":
        if self.certificate is None and self.engine != "c":
            raise ValueError(f"certificate: must be given, but for engine c, got null for {self.engine}")
        return self


class ExportedAccuracy(Frozen):
    """Accuracy on the test part, measured at the export."""

    num_images: int = Field(ge=1, le=10**12)
    """Number of images that were measured."""
    bundle: float = Field(ge=0, le=1)
    """Accuracy of the bundle's fused answer, as `planner evaluate` measures it: float32."""
    exported: float | None = Field(ge=0, le=1)
    """Accuracy of the fused answer of the exported sub-models, at the precisions of the plan; null if one in C was not
    measured, for want of a compiler."""


class AggregatorManifest(Document):
    """Content of a deployment: the devices in the plan's order, and how their features become an answer."""

    bundle: Sha256
    """SHA-256 of the manifest of the bundle that was exported."""
    aggregator: Name
    """Device that has the image and joins the features."""
    classes: tuple[Name, ...] = Field(min_length=1, max_length=MAX_CLASSES)
    """Names of the classes (C,), in the order of the answers."""
    input: ImageInput
    """Image as the devices get it."""
    devices: tuple[DeployedDevice, ...] = Field(min_length=1, max_length=10_000)
    """Used devices, in the plan's order: that in which the fusion reads their features."""
    fusion_hidden: FusionHidden
    """Number of hidden units of the fusion."""
    fusion_us: Microseconds
    """Time of the fusion as planned [us]."""
    latency_us: Microseconds
    """Latency of one image on the fleet as planned [us]."""
    accuracy: ExportedAccuracy
    """Accuracy that was measured at the export."""
    sha256: dict[FileName, Sha256]
    """SHA-256 of the arrays of the fusion."""

    @model_validator(mode="after")
    def _names_differ(self) -> "AggregatorManifest":
        for key in ("name", "folder"):
            check_names_differ((getattr(device, key) for device in self.devices), f"devices: {key}")
        certificates = (device.certificate for device in self.devices)
        check_names_differ((file for file in certificates if file is not None), "devices: certificate")
        total = sum(device.features for device in self.devices)
        if total > MAX_FEATURES:
            raise ValueError(f"devices: must return at most {MAX_FEATURES} features together, got {total}")
        return self
