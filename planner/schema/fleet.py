"""devices.json: the devices of a fleet and the links between them."""

from collections import Counter
from functools import cached_property
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from planner.schema.base import SIZE_SCHEMA, Document, Frozen, demanded_bytes, supplied_bytes
from planner.schema.sentences import nearest

Precision = Literal["float32", "float16", "int8"]
BYTES_PER_PARAM: dict[Precision, int] = {"float32": 4, "float16": 2, "int8": 1}

DEFAULT_RUNTIME_OVERHEAD_BYTES = 80 * 1024**2
LARGEST_BYTES = 2**50

Name = Annotated[str, Field(min_length=1, max_length=200)]
Budget = Annotated[int, Field(gt=0, le=LARGEST_BYTES), BeforeValidator(supplied_bytes), SIZE_SCHEMA]
Overhead = Annotated[int, Field(ge=0, le=LARGEST_BYTES), BeforeValidator(demanded_bytes), SIZE_SCHEMA]


class Device(Frozen):
    """A machine that runs one sub-model, or `count` equal ones.

    Its own numbers win over those of its kind.
    """

    name: Name
    kind: Name | None = None
    count: int = Field(1, ge=1, le=10_000)
    memory_budget: Budget
    runtime_overhead: Overhead | None = None
    macs_per_second: float | None = Field(None, ge=1, le=1e18)
    active_power_w: float | None = Field(None, gt=0)
    precision: Precision | tuple[Precision, ...] = "float32"

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions that its sub-model may have."""
        return self.precision if isinstance(self.precision, tuple) else (self.precision,)

    @model_validator(mode="after")
    def _is_whole(self) -> "Device":
        if not self.precisions or len(set(self.precisions)) < len(self.precisions):
            raise ValueError(f"precision must be one, or a list of different ones, got {list(self.precisions)}")
        if self.kind is None and self.macs_per_second is None:
            raise ValueError("a device must have a kind or its own macs_per_second, got neither")
        return self


class LinkSpeed(Frozen):
    """What one hop costs.

    What is `shared` carries one message after another, to whichever device it goes: one Wi-Fi
    for all the devices that a link (or the default link) leads to; or, given a name, for all
    links that share this name.
    """

    bandwidth_mbps: float = Field(ge=1e-6, le=1e9)
    latency_ms: float = Field(ge=0, le=1e9)
    shared: bool | Name = False


class Link(LinkSpeed):
    """A hop between two devices; the name of a device with a count stands for each of them."""

    between: tuple[Name, Name]


class Fleet(Document):
    """All devices, how they are linked, and which of them joins the features."""

    name: Name = "fleet"
    aggregator: Name
    devices: tuple[Device, ...] = Field(min_length=1)
    links: tuple[Link, ...] = ()
    default_link: LinkSpeed | None = None

    @property
    def speeds(self) -> tuple[LinkSpeed, ...]:
        """The links, then the default link, if there is one."""
        return (*self.links, *([self.default_link] if self.default_link else []))

    @cached_property
    def members(self) -> tuple[Device, ...]:
        """Every single device: `pi` with count 4 is `pi-1` to `pi-4`."""
        return tuple(member for device in self.devices for member in _each(device))

    @cached_property
    def member_names(self) -> dict[str, tuple[str, ...]]:
        """The single devices that a name in the file stands for."""
        single = {member.name: (member.name,) for member in self.members}
        return single | {d.name: tuple(m.name for m in _each(d)) for d in self.devices}

    @model_validator(mode="after")
    def _names_agree(self) -> "Fleet":
        counts = Counter(member.name for member in self.members)
        counts.update(d.name for d in self.devices if d.count > 1)
        twice = [name for name, count in counts.items() if count > 1]
        if twice:
            raise ValueError(f"devices: names must differ, {twice[0]!r} is used {counts[twice[0]]} times")
        names = self.member_names
        if len(names.get(self.aggregator, ())) != 1:
            hint = nearest(self.aggregator, (m.name for m in self.members))
            raise ValueError(f"aggregator must be one of the devices, got {self.aggregator!r}{hint}")
        for i, link in enumerate(self.links):
            for end in link.between:
                if end not in names:
                    raise ValueError(f"links[{i}]: {end!r} is not a device{nearest(end, names)}")
            if link.between[0] == link.between[1]:
                raise ValueError(f"links[{i}]: must join two devices, got {link.between[0]!r} twice")
        media: dict[str, float] = {}
        for speed in self.speeds:
            if isinstance(speed.shared, str):
                same = media.setdefault(speed.shared, speed.bandwidth_mbps)
                if same != speed.bandwidth_mbps:
                    raise ValueError(
                        f"links: one medium must have one bandwidth, {speed.shared!r} has {same:g} "
                        f"and {speed.bandwidth_mbps:g} Mbit/s"
                    )
        return self


def _each(device: Device) -> tuple[Device, ...]:
    if device.count == 1:
        return (device,)
    fields = device.model_dump() | {"count": 1}
    return tuple(Device.model_validate(fields | {"name": f"{device.name}-{i}"}) for i in range(1, device.count + 1))


class DeviceKind(Document):
    """What devices of one make share: the card under profiles/devices/."""

    kind: Name
    description: str
    macs_per_second: float = Field(gt=0)
    runtime_overhead: Overhead
    active_power_w: float | None = Field(None, gt=0)
    memory: Budget
    # Hidden channels and embed dims are fastest in multiples of this.
    preferred_multiple: int = Field(8, ge=1)
    provenance: Literal["declared", "measured"]
    sources: dict[str, str]
