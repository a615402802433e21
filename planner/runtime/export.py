"""Export of a bundle to a deployment: a folder for each used device, and one for the aggregator.

A deployment is complete or not there: it gets its name last.
"""

import hashlib
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from planner.errors import InputError, setting
from planner.executor.bundle import MANIFEST, Bundle, opened
from planner.rules.check import check
from planner.rules.engine import engine_of, is_microcontroller
from planner.runtime.export_folders import Exported, ExportJob, OnExport, write_folders
from planner.schema import (
    Assignment,
    Device,
    Engine,
    Fleet,
    ImageInput,
    InputDtype,
    ModelCard,
    Precision,
    Profile,
    did_you_mean,
    is_audio,
)
from planner.schema.data import spectrogram_of
from planner.schema.deployment import BYTES_PER_VALUE


def export_bundle(
    bundle: Path | Bundle,
    fleet: Fleet,
    out: Path,
    *,
    stand_in: bool = False,
    tls: Sequence[str] = (),
    on_progress: OnExport = lambda what, done, total: None,
) -> Exported:
    """Write the deployment of a bundle, whole or not at all.

    Args:
        bundle: Folder of the bundle, or what was read of it.
        fleet: Fleet that the bundle's plan is for.
        out: Folder to write: a new one, or an empty one.
        stand_in: True if ONNX Runtime stands in for the C engine: for a rehearsal on this machine.
        tls: Devices with the C engine, Linux boards, whose worker is to speak TLS; workers of Python always do.
        on_progress: Called with what is done, and how much of it.

    Raises:
        InputError: If the bundle is not valid or not for this fleet, a device has float16 weights or an engine that
            cannot run its sub-model, `tls` names a device that the plan does not use, whose engine is not C or that is
            a microcontroller, a package is not installed, or the folder is in use or cannot be written.
        PlannerError: If an exported sub-model does not answer as torch does, or cannot be built here.
    """
    _refuse_used(out)
    read = opened(bundle)
    if problems := check(read.plan, read.profile, fleet):
        raise InputError(f"{read.path}: must be a bundle for this fleet: {problems[0]}.")
    by_name = {member.name: member for member in fleet.members}
    planned = [engine_of(by_name[a.device]) for a in read.plan.assignments]
    stand_ins = frozenset(
        a.device for a, engine in zip(read.plan.assignments, planned, strict=True) if stand_in and engine == "c"
    )
    engines = tuple("onnxruntime" if stand_in else engine for engine in planned)
    encrypted = _encrypted(tls, {a.device: e for a, e in zip(read.plan.assignments, engines, strict=True)}, by_name)
    precisions = tuple(_precision(a, fleet) for a in read.plan.assignments)
    image = image_input(read.card, read.profile)
    part = out.with_name(f".{out.name}.part")
    # What an export that was killed has left.
    shutil.rmtree(part, ignore_errors=True)
    try:
        _make_folder(part)
        sha256 = hashlib.sha256((read.path / MANIFEST).read_bytes()).hexdigest()
        job = ExportJob(read, sha256, image, precisions, engines, stand_ins, encrypted, part)
        exported = write_folders(job, on_progress)
        _rename(part, out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return exported


def image_input(card: ModelCard, profile: Profile) -> ImageInput:
    """Return the image as it is sent to devices: values of the size that the profile counts, as the card stores them.

    Raises:
        InputError: If the profile's `input_bytes` is no whole number of bytes for each value.
    """
    assert card.preprocessing is not None
    a = card.architecture
    shape = (a.in_channels, *a.image_sides)
    num_values = math.prod(shape)
    # Spectrograms are no whole numbers.
    dtypes = [dtype for dtype in BYTES_PER_VALUE if dtype != "uint8" or not is_audio(card.data)]
    by_bytes: dict[int, InputDtype] = {BYTES_PER_VALUE[dtype] * num_values: dtype for dtype in dtypes}
    if profile.input_bytes not in by_bytes:
        allowed = " or ".join(f"{size} ({dtype})" for size, dtype in by_bytes.items())
        raise InputError(
            f"The profile's input_bytes must be {allowed} for images of {' x '.join(map(str, shape))}, "
            f"got {profile.input_bytes}; profile the model again."
        )
    return ImageInput(
        shape=shape,
        dtype=by_bytes[profile.input_bytes],
        preprocessing=card.preprocessing,
        spectrogram=spectrogram_of(card.data),
    )


def _refuse_used(out: Path) -> None:
    if not out.name:
        raise InputError(f"{setting('out')} must be a folder with a name, got {str(out)!r}.")
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise InputError(f"{out}: must be a new or empty folder, got a file or a link.")
    if out.is_dir() and (names_inside := sorted(path.name for path in out.iterdir())):
        raise InputError(f"{out}: must be a new or empty folder, got one that holds {names_inside[0]!r}.")


def _precision(a: Assignment, fleet: Fleet) -> Precision:
    """Return the precision of a planned sub-model, which an engine must be able to keep within its memory."""
    device = next(member for member in fleet.members if member.name == a.device)
    precision = a.precision or device.precisions[0]
    if precision == "float16":
        raise InputError(
            f"{a.device}: the precision must be float32 or int8, got float16: engines compute in float32 on a "
            "processor and would unpack the weights to twice the memory that was planned; plan another precision."
        )
    return precision


def _encrypted(tls: Sequence[str], engines: Mapping[str, Engine], devices: Mapping[str, Device]) -> frozenset[str]:
    """Return the devices whose worker in C speaks TLS, given the engine of each used device, and all devices."""
    for name in tls:
        if name not in engines:
            hint = did_you_mean(name, engines)
            raise InputError(f"{setting('tls')} must name devices that the plan uses, got {name[:100]!r}{hint or '.'}")
        if engines[name] != "c":
            raise InputError(
                f"{setting('tls')} must name devices with the C engine, got {name!r}, whose worker is one of Python "
                "(onnxruntime) and always speaks TLS; leave it out."
            )
        if is_microcontroller(devices[name]):
            of_kind = "" if devices[name].kind is None else f" (kind {devices[name].kind!r})"
            raise InputError(
                f"{setting('tls')} must name Linux boards, got {name!r}{of_kind}, a microcontroller whose weights are "
                "in flash: the worker of a firmware has no TLS; leave it out, and keep it on a network that you trust."
            )
    return frozenset(tls)


def _make_folder(part: Path) -> None:
    try:
        part.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{part}: cannot be written ({error.strerror}).") from None


def _rename(part: Path, out: Path) -> None:
    try:
        part.rename(out)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror}).") from None
