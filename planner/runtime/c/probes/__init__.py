"""Probes in C: networks that a board times, with or without an operating system, without Python."""
