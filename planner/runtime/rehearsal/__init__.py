"""Rehearsal of a bundle on an emulated fleet: predicted beside measured."""

from planner.runtime.rehearsal.rehearse import rehearse
from planner.runtime.rehearsal.stage import RehearsalOptions

__all__ = ["RehearsalOptions", "rehearse"]
