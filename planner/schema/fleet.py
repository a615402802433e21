"""devices.json: the devices of a fleet and the links between them."""

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from planner.errors import quoted
from planner.schema.base import Document, Frozen, bytes_rounded_down, bytes_rounded_up, size_schema
from planner.schema.error_messages import did_you_mean
from planner.schema.quantities import MAX_BYTES, MacRate, Power
from planner.schema.text import MAX_NAME_LENGTH, Name, Text, check_names_differ

Precision = Literal["float32", "float16", "int8"]
Engine = Literal["onnxruntime", "c"]
BYTES_PER_PARAM: dict[Precision, int] = {"float32": 4, "float16": 2, "int8": 1}

DEFAULT_RUNTIME_OVERHEAD_BYTES = 80 * 1024**2
DEFAULT_STORAGE_OVERHEAD_BYTES = 64 * 1024
# More than any plan is made for, less than what fills a memory; hops of single devices.
MAX_DEVICES, MAX_LINKED_PAIRS = 10_000, 200_000

Budget = Annotated[int, Field(gt=0, le=MAX_BYTES), BeforeValidator(bytes_rounded_down), size_schema(1, MAX_BYTES)]
Overhead = Annotated[int, Field(ge=0, le=MAX_BYTES), BeforeValidator(bytes_rounded_up), size_schema(0, MAX_BYTES)]

_ADDRESS = r"^(\[[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?\]|[^\s:\[\]]+):[0-9]{1,5}$"


def _as_address(value: str) -> str:
    if not re.fullmatch(_ADDRESS, value) or int(value.rpartition(":")[2]) > 65_535:
        raise ValueError(f"must be HOST:PORT, such as 192.168.0.11:7447, got {quoted(value)}")
    return value


Address = Annotated[str, Field(max_length=300, json_schema_extra={"pattern": _ADDRESS}), AfterValidator(_as_address)]


def _is_none(value: object) -> bool:
    return value is None


class Device(Frozen):
    """Machine that runs one sub-model, or `count` equal machines.

    It has a kind, its own `macs_per_second`, or both; its own numbers win over those of its kind.
    """

    # Tells editors the rule that `_is_whole` enforces.
    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["kind"]}, {"required": ["macs_per_second"]}]})

    name: Name
    """Name of the device in plans, unique in the fleet."""
    kind: Name | None = None
    """Device kind: one of profiles/devices/, or one that the profile has a latency table for."""
    count: int = Field(1, ge=1, le=10_000)
    """Number of equal devices: `pi` with count 4 stands for `pi-1` to `pi-4`."""
    memory_budget: Budget
    """RAM that it grants for activations, runtime and, without a storage budget, weights [bytes]; rounded down."""
    runtime_overhead: Overhead | None = None
    """RAM that the runtime takes before a model is loaded [bytes]; the kind's unless given, else 80 MiB."""
    # These are left out where they are not given, so that the hashes of older fleets stay.
    storage_budget: Budget | None = Field(None, exclude_if=_is_none)
    """Flash that the device grants for weights and code [bytes], which then take no RAM; rounded down; engine `c`."""
    storage_overhead: Overhead | None = Field(None, exclude_if=_is_none)
    """Flash that code takes beside the weights [bytes]; the kind's unless given, else 64 KiB."""
    macs_per_second: MacRate | None = None
    """Declared MAC rate [MAC/s]; it wins over the rate of the kind and over the latency table of the profile."""
    active_power_w: Power | None = None
    """Power while the device computes [W]; the kind's unless given."""
    engine: Engine | None = Field(None, exclude_if=_is_none)
    """Engine that runs the sub-model: `onnxruntime`, or `c` where it does not run; the kind's unless given."""
    precision: Precision | tuple[Precision, ...] = "float32"
    """Precision of the weights; a list leaves the choice to the planner, if the profile has `precision_retention`."""
    # Not written and so not hashed: a plan stays valid when a board gets another address.
    address: Address | None = Field(None, exclude=True)
    """Address of the device's worker, `host:port`; needed to serve, not to plan."""

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Precisions that the sub-model may have."""
        return self.precision if isinstance(self.precision, tuple) else (self.precision,)

    @model_validator(mode="after")
    def _is_whole(self) -> "Device":
        if not self.precisions or len(set(self.precisions)) < len(self.precisions):
            raise ValueError(f"precision must be one, or a list of different ones, got {list(self.precisions)}")
        if self.kind is None and self.macs_per_second is None:
            raise ValueError("a device must have a kind or its own macs_per_second, got neither")
        longest = f"{self.name}-{self.count}" if self.count > 1 else self.name
        if len(longest) > MAX_NAME_LENGTH:
            raise ValueError(f"name must have at most {MAX_NAME_LENGTH} characters with its number, got {len(longest)}")
        if self.address is not None and self.count > 1:
            raise ValueError(f"address must be that of one device, got {self.address!r} for {self.count} devices")
        return self


class LinkSpeed(Frozen):
    """Bandwidth and latency of one hop.

    A `shared` link is one medium that carries one message after another, to whichever device it goes: one Wi-Fi for
    all the devices that the link (or the default link) leads to; or, given a name, for all links of this name.
    """

    bandwidth_mbps: float = Field(ge=1e-6, le=1e9)
    """Bandwidth [Mbit/s]."""
    latency_ms: float = Field(ge=0, le=1e9)
    """Time until the first byte of a message arrives [ms]."""
    shared: bool | Name = False
    """True if it is one medium for all devices that it leads to; a name joins it with all links of that name."""


class Link(LinkSpeed):
    """Hop between two devices; the name of a device with a count stands for each of them."""

    between: tuple[Name, Name]
    """Devices at the two ends, in any order; `pi` and `pi-1` join `pi-1` with each other `pi`."""


class Fleet(Document):
    """Fleet of devices with the links between them, and the device that joins the features."""

    name: Name = "fleet"
    """Name of the fleet in tables."""
    aggregator: Name
    """Device that has the image and joins the features: a single one, not a name with a count."""
    devices: tuple[Device, ...] = Field(min_length=1)
    """All devices, the aggregator among them."""
    links: tuple[Link, ...] = ()
    """Hops between devices; a path may take several of them."""
    default_link: LinkSpeed | None = None
    """Link to each device that no path of links leads to; without it, such a device is an error."""

    @property
    def link_speeds(self) -> tuple[LinkSpeed, ...]:
        """All links, then the default link, if there is one."""
        return (*self.links, *([self.default_link] if self.default_link else []))

    @property
    def has_storage(self) -> bool:
        """True if any device has a storage budget."""
        return any(device.storage_budget is not None for device in self.devices)

    @cached_property
    def members(self) -> tuple[Device, ...]:
        """Single devices of the fleet: `pi` with count 4 is `pi-1` to `pi-4`."""
        return tuple(member for same in self._by_entry for member in same)

    @cached_property
    def member_names(self) -> dict[str, tuple[str, ...]]:
        """Single devices that each name stands for, that of a device with a count included."""
        single = {member.name: (member.name,) for member in self.members}
        pairs = zip(self.devices, self._by_entry, strict=True)
        return single | {device.name: tuple(member.name for member in same) for device, same in pairs}

    @cached_property
    def _by_entry(self) -> tuple[tuple[Device, ...], ...]:
        """Single devices of each entry."""
        return tuple(map(_each, self.devices))

    @model_validator(mode="after")
    def _names_agree(self) -> "Fleet":
        num_members = sum(device.count for device in self.devices)
        if num_members > MAX_DEVICES:
            raise ValueError(f"devices: must be at most {MAX_DEVICES} with their counts, got {num_members}")
        counted = (d.name for d in self.devices if d.count > 1)
        check_names_differ([*(member.name for member in self.members), *counted], "devices", across_scripts=True)
        names = self.member_names
        if len(names.get(self.aggregator, ())) != 1:
            hint = did_you_mean(self.aggregator, (m.name for m in self.members))
            raise ValueError(f"aggregator must be one of the devices, got {quoted(self.aggregator)}{hint}")
        self._check_links(names)
        return self

    def _check_links(self, names: Mapping[str, tuple[str, ...]]) -> None:
        num_hops = 0
        for i, link in enumerate(self.links):
            for end in link.between:
                if end not in names:
                    raise ValueError(f"links[{i}]: {quoted(end)} is not a device{did_you_mean(end, names)}")
            num_hops += len(names[link.between[0]]) * len(names[link.between[1]])
            if num_hops > MAX_LINKED_PAIRS:
                raise ValueError(f"links: must be at most {MAX_LINKED_PAIRS:,} hops between single devices, got more")
            if link.between[0] == link.between[1]:
                raise ValueError(f"links[{i}]: must join two devices, got {quoted(link.between[0])} twice")
        media: dict[str, float] = {}
        for speed in self.link_speeds:
            if isinstance(speed.shared, str):
                same = media.setdefault(speed.shared, speed.bandwidth_mbps)
                if same != speed.bandwidth_mbps:
                    raise ValueError(
                        f"links: one medium must have one bandwidth, {quoted(speed.shared)} has {same:g} "
                        f"and {speed.bandwidth_mbps:g} Mbit/s"
                    )


def _each(device: Device) -> tuple[Device, ...]:
    if device.count == 1:
        return (device,)
    fields = device.model_dump() | {"count": 1}
    return tuple(Device.model_validate(fields | {"name": f"{device.name}-{i}"}) for i in range(1, device.count + 1))


class DeviceKind(Document):
    """Properties that all devices of one kind share: the card under profiles/devices/."""

    kind: Name
    """Name of the kind in devices.json."""
    description: Text
    """Description for people: maker, model, clock, memory."""
    macs_per_second: MacRate
    """MAC rate that one sub-model reaches at batch size one [MAC/s]."""
    runtime_overhead: Overhead
    """RAM that the runtime takes before a model is loaded [bytes]; rounded up."""
    storage_overhead: Overhead | None = None
    """Flash that code takes beside the weights [bytes]; rounded up."""
    active_power_w: Power | None = None
    """Power while the device computes [W]."""
    engine: Engine = "onnxruntime"
    """Engine that runs sub-models: `onnxruntime`, or `c` where ONNX Runtime does not run."""
    memory: Budget
    """RAM of the board [bytes]; the memory budget of a device is part of it."""
    storage: Budget | None = None
    """Flash of the board from which weights are read in place [bytes]; a device's storage budget is part of it."""
    preferred_multiple: int = Field(8, ge=1, le=65_536)
    """Multiple in which hidden channels and embed dims are fastest; for people, the planner does not read it."""
    provenance: Literal["declared", "measured"]
    """Origin of the MAC rate: declared in data sheets, or measured."""
    sources: dict[Text, Text]
    """Source of each number, by its key."""
