"""Rehearsal of a bundle on an emulated fleet: predicted beside measured."""

from planner.runtime.rehearsal.prepared import RehearsalOptions
from planner.runtime.rehearsal.rehearse import rehearse

__all__ = ["RehearsalOptions", "rehearse"]
