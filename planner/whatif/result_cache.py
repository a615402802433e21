"""Cache of finished rows in a file beside the result, until that is complete: a line of JSON for each row.

A line that was cut off, for instance by a power failure, is skipped. Each line has the hash of all that its row depends
on, so that nothing is found for a changed fleet, profile or version.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from planner.errors import InputError
from planner.schema import Plan
from planner.whatif.rows import ScenarioRow, from_line, to_line


class ResultCache:
    """Rows by the hash of what they depend on, written to a file if there is one."""

    def __init__(self, path: Path | None = None) -> None:
        """Read the rows of an earlier run.

        Raises:
            InputError: If the file cannot be read or written.
        """
        self.path = path
        self._rows: dict[str, ScenarioRow] = {}
        self._plans: dict[str, Plan] = {}
        if path is None:
            return
        lines: list[str] = []
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
            # After a line that was cut off, new rows must begin on a line of their own.
            if lines and not lines[-1].endswith("\n"):
                with path.open("a", encoding="utf-8") as file:
                    file.write("\n")
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror}).") from None
        for line in lines:
            self._read(line)

    def row(self, key: str) -> ScenarioRow | None:
        """Return a finished row, if it is cached."""
        return self._rows.get(key)

    def plan(self, key: str) -> Plan | None:
        """Return today's plan, if it is cached."""
        return self._plans.get(key)

    def add_row(self, key: str, row: ScenarioRow) -> None:
        """Write a finished row to the file, if there is one."""
        self._write({"key": key, "row": to_line(row)})

    def add_plan(self, key: str, plan: Plan) -> None:
        """Write today's plan to the file, if there is one."""
        self._write({"key": key, "plan": plan.model_dump(mode="json")})

    def delete_file(self) -> None:
        """Delete the file, once the result is complete."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _write(self, line: dict[str, Any]) -> None:
        if self.path is None:
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({error.strerror}).") from None

    def _read(self, line: str) -> None:
        try:
            data = json.loads(line)
            key = data["key"]
            if "plan" in data:
                self._plans[key] = Plan.model_validate(data["plan"])
            elif (row := from_line(data["row"])) is not None:
                self._rows[key] = row
        except (ValueError, KeyError, TypeError, ValidationError):
            return
