"""What is finished is kept beside the result's file until that is whole: a line of JSON for each row.

A line that was cut off, as by a loss of power, is passed over. Each has the hash of all that it depends on, so
that a changed fleet, profile or version finds nothing of it.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from planner.errors import InputError
from planner.schema import Plan
from planner.whatif.rows import ScenarioRow, from_line, to_line


class ResultCache:
    """Rows by what they depend on, in memory or in a file as well."""

    def __init__(self, path: Path | None = None) -> None:
        """Read what an earlier run kept.

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
            # Behind a line that was cut off, a new one begins.
            if lines and not lines[-1].endswith("\n"):
                with path.open("a", encoding="utf-8") as file:
                    file.write("\n")
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror}).") from None
        for line in lines:
            self._read(line)

    def row(self, key: str) -> ScenarioRow | None:
        """Return a finished row."""
        return self._rows.get(key)

    def plan(self, key: str) -> Plan | None:
        """Return the plan that all rows began with."""
        return self._plans.get(key)

    def keep_row(self, key: str, row: ScenarioRow) -> None:
        """Keep a finished row; without a file there is nobody to give it to."""
        self._write({"key": key, "row": to_line(row)})

    def keep_plan(self, key: str, plan: Plan) -> None:
        """Keep the plan that all rows begin with."""
        self._write({"key": key, "plan": plan.model_dump(mode="json")})

    def done(self) -> None:
        """Take the file away: the result is whole."""
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
