"""devices.json: the devices of a fleet and the links between them."""

from collections import Counter
from functools import cached_property
from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from planner.schema.base import Document, Frozen, demanded_bytes, size_schema, supplied_bytes
from planner.schema.error_messages import nearest

Precision = Literal["float32", "float16", "int8"]
BYTES_PER_PARAM: dict[Precision, int] = {"float32": 4, "float16": 2, "int8": 1}

DEFAULT_RUNTIME_OVERHEAD_BYTES = 80 * 1024**2
LARGEST_BYTES = 2**50

Name = Annotated[str, Field(min_length=1, max_length=200)]
Budget = Annotated[int, Field(gt=0, le=LARGEST_BYTES), BeforeValidator(supplied_bytes), size_schema(1, LARGEST_BYTES)]
Overhead = Annotated[int, Field(ge=0, le=LARGEST_BYTES), BeforeValidator(demanded_bytes), size_schema(0, LARGEST_BYTES)]


class Device(Frozen):
    """A machine that runs one sub-model, or `count` equal ones.

    It has a kind, its own `macs_per_second`, or both; its own numbers win over those of its kind.
    """

    # The same rule for editors as below.
    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["kind"]}, {"required": ["macs_per_second"]}]})

    name: Name
    """What plans call it; names differ."""
    kind: Name | None = None
    """Its make: one of profiles/devices/, or one that the profile has a latency table for."""
    count: int = Field(1, ge=1, le=10_000)
    """How many equal ones: `pi` with count 4 stands for `pi-1` to `pi-4`."""
    memory_budget: Budget
    """What the device grants for weights, activations and runtime together [bytes]; rounded down."""
    runtime_overhead: Overhead | None = None
    """What the runtime takes before a model is loaded [bytes]; the kind's unless given, else 80 MiB."""
    macs_per_second: float | None = Field(None, ge=1, le=1e18)
    """Its declared rate [MAC/s]; it wins over the kind's rate and over the profile's latency table."""
    active_power_w: float | None = Field(None, gt=0)
    """Power while it computes [W]; the kind's unless given."""
    precision: Precision | tuple[Precision, ...] = "float32"
    """Of the weights; a list leaves the choice to the planner, where the profile has `precision_retention`."""

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
    """What goes through it [Mbit/s]."""
    latency_ms: float = Field(ge=0, le=1e9)
    """What a message takes before its first byte arrives [ms]."""
    shared: bool | Name = False
    """Whether it is one medium for all devices that it leads to; a name makes it one with all links of that name."""


class Link(LinkSpeed):
    """A hop between two devices; the name of a device with a count stands for each of them."""

    between: tuple[Name, Name]
    """The devices at its two ends, in any order."""


class Fleet(Document):
    """All devices, how they are linked, and which of them joins the features."""

    name: Name = "fleet"
    """What tables call it."""
    aggregator: Name
    """The device that has the image and joins the features: a single one, not a name with a count."""
    devices: tuple[Device, ...] = Field(min_length=1)
    """All devices, the aggregator among them."""
    links: tuple[Link, ...] = ()
    """Hops between devices; a path may have several."""
    default_link: LinkSpeed | None = None
    """How a device is reached that no path of links leads to; without it, that is an error."""

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
    """What devices.json calls it."""
    description: str
    """Maker, model, clock, memory: what it is."""
    macs_per_second: float = Field(gt=0)
    """What one sub-model reaches at batch size one [MAC/s]."""
    runtime_overhead: Overhead
    """What the runtime takes before a model is loaded [bytes]; rounded up."""
    active_power_w: float | None = Field(None, gt=0)
    """Power while it computes [W]."""
    memory: Budget
    """What the board has [bytes]; a device's budget is part of it."""
    preferred_multiple: int = Field(8, ge=1)
    """Hidden channels and embed dims are fastest in multiples of this; for people, the planner does not read it."""
    provenance: Literal["declared", "measured"]
    """Whether the rate was read in data sheets or measured."""
    sources: dict[str, str]
    """Where each number is from, by its key."""
