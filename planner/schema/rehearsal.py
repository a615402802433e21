"""rehearsal.json: a bundle run on an emulated fleet, predicted beside measured."""

from typing import Literal

from pydantic import Field, model_validator

from planner.schema.base import Document, Frozen
from planner.schema.fleet import Engine, Precision
from planner.schema.quantities import Count, MeasuredUs, Microseconds, NumBytes, Ratio, Seconds
from planner.schema.text import Name, Sha256, Text


class Percentiles(Frozen):
    """Percentiles of a time over all images [us]."""

    p10: MeasuredUs
    """10th percentile [us]: one image in ten takes less."""
    p50: MeasuredUs
    """Median [us]."""
    p99: MeasuredUs
    """99th percentile [us]."""


class Step(Frozen):
    """Step of an answer: its predicted and its measured time."""

    predicted_us: Microseconds | None = None
    """Predicted time [us]; null if nothing predicts it."""
    measured_us: Percentiles | None = None
    """Measured time [us]; null if no image took the step."""
    held_us: Microseconds = 0
    """Time of it that a worker waits for [us]; a step that is held to all of its prediction proves nothing."""

    @property
    def origin(self) -> Literal["held", "part", "real"]:
        """Origin of the measured time: held to the prediction, a part of it held, or really measured."""
        if self.held_us == 0:
            return "real"
        return "held" if self.predicted_us is not None and self.held_us >= self.predicted_us else "part"


class RehearsedDevice(Frozen):
    """Device of a rehearsal: a worker process on this machine."""

    device: Name
    """Name of the device."""
    engine: Engine = "onnxruntime"
    """Engine that ran the sub-model."""
    stand_in: bool = False
    """True if ONNX Runtime stands in for the engine of the real device."""
    precision: Precision = "float32"
    """Precision of the weights."""
    num_replies: Count
    """Number of images that the device answered in time."""
    send: Step
    """From the moment the image is there until the device begins to compute."""
    compute: Step
    """Compute time of the sub-model."""
    returned: Step
    """From the end of computing until the aggregator has the features."""
    latency: Step
    """Send, compute and return together."""
    network_us: Percentiles | None = None
    """Time that the sub-model itself takes on this machine [us], without any waiting."""
    num_overruns: Count = 0
    """Number of images for which this machine was too slow to hold the compute time to the plan."""
    planned_memory_bytes: NumBytes
    """Memory as planned [bytes]: weights, peak activations and runtime overhead."""
    planned_runtime_bytes: NumBytes
    """Runtime overhead in it [bytes]."""
    peak_bytes: NumBytes | None = None
    """Peak resident memory of the worker process [bytes]; null where the system does not tell it."""
    interpreter_bytes: NumBytes | None = None
    """Peak resident memory of a process with the same interpreter and libraries but no model [bytes]; null for a worker
    in C, which has none."""


class Outage(Frozen):
    """Absence of a device: its worker was killed, and started again later."""

    device: Name
    """Name of the device."""
    killed_before: int = Field(ge=1, le=10**12)
    """Number of the image before which the worker was killed; the first image is 1."""
    restarted_before: int | None = Field(None, ge=1, le=10**12)
    """Number of the image before which it was started again."""
    num_without: Count
    """Number of answers without the device."""
    back_s: Seconds | None = None
    """Time from the moment the restarted worker listens until it takes part in an answer [s]; null if it did not."""

    @model_validator(mode="after")
    def _is_back_once_restarted(self) -> "Outage":
        if self.back_s is not None and self.restarted_before is None:
            raise ValueError(f"an outage must have restarted_before beside back_s, got back_s {self.back_s:g} alone")
        return self


class Rehearsal(Document):
    """Rehearsal of a bundle on this machine: predicted beside measured for every device and the whole fleet."""

    fleet: Name
    """Name of the fleet."""
    bundle_sha256: Sha256
    """SHA-256 of the bundle's manifest."""
    plan_sha256: Sha256
    """SHA-256 of the plan, as canonical JSON."""
    machine: Text
    """Machine that it ran on, with the versions of what ran sub-models."""
    num_cores: int = Field(1, ge=1, le=10**6)
    """Number of its processor cores."""
    load_average: Ratio | None = None
    """Processes that already ran or waited for a core before the rehearsal, on average over a minute."""
    links: Literal["held", "namespaces"]
    """Links: held to the plan by waiting in the workers, or network namespaces with limited bandwidth."""
    compute: Literal["planned", "measured"]
    """Compute: held to the plan by waiting, or at the speed of this machine."""
    num_shared_media: Count = 0
    """Number of shared media on the paths; held links are those of the last message on its medium, as planned."""
    num_images: int = Field(ge=1, le=10**12)
    """Number of images that were answered."""
    deadline_us: int = Field(ge=1, le=2**50)
    """Deadline of each image [us]: a device that has not answered by then is left out."""
    num_unanswered: Count = 0
    """Number of images that no device answered, all of them being away."""
    num_late: Count = 0
    """Number of answers that were later than the deadline and the fusion allow."""
    devices: tuple[RehearsedDevice, ...] = Field(min_length=1)
    """Used devices, in the plan's order."""
    fusion: Step
    """Fusion on the aggregator: predicted for the aggregator of the fleet, measured on this machine."""
    latency: Step
    """Whole answer: the slowest device, then the fusion."""
    accuracy: float = Field(ge=0, le=1)
    """Share of the images that were answered right."""
    bundle_accuracy: float = Field(ge=0, le=1)
    """Share of the same images that the bundle itself gets right, with the same devices missing."""
    exported_accuracy: float = Field(ge=0, le=1)
    """Accuracy that the export measured on the whole test part, at the precisions of the plan and with all devices."""
    num_evaluated: int = Field(ge=1, le=10**12)
    """Number of images that `planner evaluate` measures."""
    num_differing: Count
    """Number of answers with another class than the bundle's own answer."""
    outages: tuple[Outage, ...] = ()
    """Devices that were taken away, in the order in which that was asked for."""

    @property
    def was_busy(self) -> bool:
        """True if other processes took so much of the machine that times are likely to be longer than predicted."""
        return self.load_average is not None and self.load_average > self.num_cores / 2

    @property
    def is_held(self) -> bool:
        """True if any time was held to the plan."""
        return any(step.held_us for d in self.devices for step in (d.send, d.compute, d.returned))
