"""Rows of what-if as CSV, which people open in spreadsheets."""

import csv
import io

from planner.whatif import ScenarioRow, frame_of, frame_to_csv, rows_to_csv


def test_csv_holds_no_formula() -> None:
    """What a spreadsheet would compute is text; the planner's own "+ kind" is none, and numbers stay numbers."""
    names = ["=cmd|' /C calc'!A0", "@x", "-2+3", "+1", "+ esp32-s3", "a=b"]
    rows = [ScenarioRow(name, "impossible", change_us=-5, reason="=1") for name in names]
    read = list(csv.DictReader(io.StringIO(rows_to_csv(rows))))
    assert [row["scenario"] for row in read] == ["'" + name for name in names[:4]] + names[4:]
    assert {row["reason"] for row in read} == {"'=1"}
    assert {row["change_us"] for row in read} == {"-5"}
    text = frame_to_csv(frame_of(rows), index=True)
    assert [row["scenario"] for row in csv.DictReader(io.StringIO(text))] == [row["scenario"] for row in read]
