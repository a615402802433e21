"""Devices taken away during a rehearsal, and brought back."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from planner.errors import InputError
from planner.runtime.rehearsal.crew import Crew
from planner.schema import Outage, did_you_mean

_KILL = re.compile(r"(.+)@([1-9][0-9]{0,8})\Z", re.DOTALL)
# Images until a device that was taken away is started again; sooner where images take long.
IMAGES_AWAY = 50
_MAX_AWAY_S = 5.0


@dataclass(frozen=True)
class Kill:
    """Wish to kill a device's worker before an image; the first image is 1."""

    device: str
    before_image: int

    @property
    def back_before(self) -> int:
        """Number of the image before which the worker is started again at the latest."""
        return self.before_image + IMAGES_AWAY


def parse_kills(texts: Sequence[str], devices: Sequence[str]) -> tuple[Kill, ...]:
    """Return wishes from texts such as "pump@100".

    Raises:
        InputError: If a text has another form, names no used device, or a device is away already.
    """
    kills: list[Kill] = []
    for text in texts:
        match = _KILL.match(text)
        if match is None:
            raise InputError(f"must be NAME@IMAGE, such as {devices[0]}@100, got {text!r}.", field="kill")
        if match[1] not in devices:
            hint = did_you_mean(match[1], devices) or f"; used are {', '.join(devices[:10])}."
            raise InputError(f"must name a device that the plan uses, got {match[1]!r}{hint}", field="kill")
        kills.append(Kill(match[1], int(match[2])))
    for kill in kills:
        for other in kills:
            if other.device == kill.device and kill.before_image < other.before_image <= kill.back_before:
                raise InputError(
                    f"{kill.device} is away from image {kill.before_image} to {kill.back_before}, so it cannot be "
                    f"killed at image {other.before_image}.",
                    field="kill",
                )
    if len(set(kills)) < len(kills):
        raise InputError("a device can be killed once at the same image, got it twice.", field="kill")
    return tuple(kills)


class Outages:
    """Devices that are taken away and brought back while images are answered."""

    def __init__(self, kills: Sequence[Kill], num_images: int) -> None:
        """Plan outages among so many images.

        Raises:
            InputError: If a device is to be killed after the last image.
        """
        for kill in kills:
            if kill.before_image > num_images:
                raise InputError(
                    f"must name one of the {num_images} images, got image {kill.before_image} for {kill.device}.",
                    field="kill",
                )
        self._all = [_OneOutage(kill) for kill in kills]

    def before(self, number: int, crew: Crew) -> None:
        """Take away and bring back what is due before an image; the first image is 1."""
        for one in self._all:
            if number == one.kill.before_image:
                crew.kill(one.kill.device)
                one.killed_at = time.monotonic()
            elif one.is_due(number):
                crew.start(one.kill.device)
                one.restarted_before = number
            if one.restarted_before is not None and one.listens_since is None:
                one.listens_since = crew.listening_since(one.kill.device)

    def after(self, missing: Sequence[str]) -> None:
        """Note which devices were missing from an answer."""
        for one in self._all:
            if not one.is_away:
                continue
            if one.kill.device in missing:
                one.num_without += 1
            elif one.restarted_before is not None:
                now = time.monotonic()
                one.back_s = now - (one.listens_since or now)

    @property
    def are_over(self) -> bool:
        """True if every device that was taken away is back."""
        return not any(one.is_away for one in self._all)

    def outages(self) -> tuple[Outage, ...]:
        """Return what happened, in the order in which it was asked for."""
        return tuple(
            Outage(
                device=one.kill.device,
                killed_before=one.kill.before_image,
                restarted_before=one.restarted_before,
                num_without=one.num_without,
                back_s=None if one.back_s is None else round(one.back_s, 3),
            )
            for one in self._all
        )


@dataclass
class _OneOutage:
    kill: Kill
    killed_at: float | None = None
    restarted_before: int | None = None
    listens_since: float | None = None
    num_without: int = 0
    back_s: float | None = None

    @property
    def is_away(self) -> bool:
        """True from the kill until the device takes part in an answer again."""
        return self.killed_at is not None and self.back_s is None

    def is_due(self, number: int) -> bool:
        """Return whether the worker is to be started again before an image."""
        if self.killed_at is None or self.restarted_before is not None:
            return False
        return number >= self.kill.back_before or time.monotonic() - self.killed_at > _MAX_AWAY_S
