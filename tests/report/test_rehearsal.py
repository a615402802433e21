"""Rehearsals as text, plot and part of the page: the numbers are the rehearsal's, and what is held is said."""

from typing import Any

import pytest
from pydantic import ValidationError
from rich.console import Console

from planner.report.page import page
from planner.report.page_tables import rehearsed_latencies_table, rehearsed_memory_table, steps_table
from planner.report.plots import rehearsal_plot
from planner.report.rehearsal_text import rehearsal_text
from planner.schema import Rehearsal
from tests.helpers.drawn_plan import drawn
from tests.helpers.figures import title, trace
from tests.helpers.rehearsals import rehearsal, step, times


def shown(of: Rehearsal) -> str:
    """Return a rehearsal as text on a terminal of 80 columns."""
    console = Console(width=80, color_system=None)
    with console.capture() as capture:
        console.print(rehearsal_text(of))
    return capture.get()


def flowing(text: str) -> str:
    """Return a text without its line breaks."""
    return " ".join(text.split())


def row(text: str, *cells: str) -> bool:
    """Return whether a table in the text has a row with these cells, in this order."""
    rows = [[cell.strip() for cell in line.strip("│\n").split("│")] for line in text.splitlines() if "│" in line]
    return any(found[-len(cells) :] == list(cells) for found in rows)


def test_predicted_stands_beside_measured() -> None:
    """gateway computes 5.5 ms where 5 were planned, 10 % more; far is held, and says so."""
    text = shown(rehearsal())
    assert "Rehearsal of pencil: 20 images, predicted 7.0 ms, measured 6.7 ms (-5%)" in text
    assert row(text, "compute", "5.00", "5.40", "5.50", "5.90", "+10%", "real")
    assert row(text, "compute", "3.00", "3.00", "3.00", "3.05", "+0%", "held")
    assert row(text, "fusion", "0.50", "0.06", "0.08", "0.10", "-84%", "real")
    assert row(text, "answer", "7.00", "6.60", "6.65", "7.20", "-5%", "")
    assert row(text, "96 MiB", "80 MiB", "64 MiB", "50 MiB")
    assert "such a number proves nothing" in flowing(text)
    assert "ONNX Runtime stands in for the engine of far" in flowing(text)
    assert "the same class for each of 20 images." in flowing(text)


@pytest.mark.parametrize("name", ["far", "a-device-with-a-rather-long-name-of-more-than-forty-letters"])
def test_it_fits_80_columns(name: str) -> None:
    """No line is longer, however long the names are and however slow the fleet is."""
    first, second = rehearsal().model_dump(mode="json")["devices"]
    slow = {key: step(12_345_678, times(12_345_678, 12_345_678, 12_345_678)) for key in ("send", "compute", "latency")}
    text = shown(rehearsal(devices=[first, second | slow | {"device": name}]))
    assert max(map(len, text.splitlines())) <= 80
    assert "12,345.68" in text


def test_another_answer_is_no_small_print() -> None:
    """Answers that are not the bundle's are counted."""
    text = flowing(shown(rehearsal(num_differing=3, accuracy=0.8)))
    assert "Accuracy over the fleet 80.0%, of the bundle 95.0%: another class for 3 of 20 images." in text


def test_a_worker_that_is_back_was_restarted() -> None:
    """A file that says how soon a worker was back, but not before which image it was started, is refused."""
    outage = {"device": "far", "killed_before": 5, "num_without": 61, "back_s": 0.41}
    with pytest.raises(ValidationError, match=r"must have restarted_before beside back_s, got back_s 0\.41 alone"):
        rehearsal(outages=[outage])


def test_an_outage_is_told() -> None:
    """When the device was taken away and was back, the answers without it, and that none was lost."""
    outage = {"device": "far", "killed_before": 5, "restarted_before": 55, "num_without": 61, "back_s": 0.41}
    text = flowing(shown(rehearsal(outages=[outage])))
    assert "far was killed before image 5 and was back 0.41 s after it listened again, started before image 55" in text
    assert "61 answers without it. No answer was lost." in text
    gone = outage | {"restarted_before": None, "back_s": None}
    text = flowing(shown(rehearsal(outages=[gone], num_unanswered=2)))
    assert "far was killed before image 5 and was not back in time; 61 answers without it." in text
    assert "2 images lost, since no device was there." in text


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"num_shared_media": 1}, "On a shared medium each message is held as the last of all, as planned."),
        ({"links": "namespaces"}, "Latency is the part that is held."),
        ({"compute": "measured"}, "Compute is predicted for kind local: the machine that measured the profile."),
        (
            {"num_cores": 2, "load_average": 9.61},
            "This machine was busy (load 9.6 on 2 cores before it began): rehearse again when it is not.",
        ),
        ({"num_late": 2}, "2 answers later than the deadline."),
    ],
)
def test_what_numbers_mean_is_said(changes: dict[str, Any], told: str) -> None:
    """Each way to rehearse has its sentence."""
    assert told in flowing(shown(rehearsal(**changes)))
    assert told not in flowing(shown(rehearsal()))


def test_nothing_predicted_is_a_dash() -> None:
    """A profile without a table of kind local predicts no compute here, and so no answer."""
    devices = rehearsal().model_dump(mode="json")["devices"]
    devices[0] |= {"compute": step(None, times(1, 2, 3)), "latency": step(None, times(1, 2, 3))}
    text = shown(rehearsal(compute="measured", devices=devices, latency=step(None, times(1, 2, 3))))
    assert row(text, "compute", "-", "0.00", "0.00", "0.00", "-", "real")
    assert "nothing predicts this machine's compute" in flowing(text)
    assert "20 images, nothing predicted, measured 0.002 ms" in text


def test_held_to_a_part_is_neither() -> None:
    """A step of which only the link's latency is held is called neither held nor real."""
    devices = rehearsal().model_dump(mode="json")["devices"]
    devices[1]["send"] |= {"held_us": 500}
    assert row(shown(rehearsal(devices=devices)), "send", "2.00", "2.00", "2.01", "2.10", "+0%", "part")


def test_bars_are_predicted_and_measured() -> None:
    """The slowest on top, the whole answer last; whiskers from the 10th to the 99th percentile."""
    figure = rehearsal_plot(rehearsal())
    assert title(figure).startswith("Rehearsal of pencil")
    labels = [label.partition("<br>")[0] for label in figure.layout.yaxis.ticktext]
    assert labels == ["far", "gateway", "<b>whole answer</b>"]
    assert tuple(trace(figure, "predicted").x) == (6.5, 5.0, 7.0)
    measured = trace(figure, "measured: median, 10th to 99th percentile")
    assert tuple(measured.x) == (6.53, 5.6, 6.65)
    assert tuple(measured.error_x.array) == pytest.approx((0.37, 0.4, 0.55))
    assert tuple(measured.error_x.arrayminus) == pytest.approx((0.02, 0.1, 0.05))


def test_the_page_shows_it() -> None:
    """Sections with plot, steps and memory, only where there is a rehearsal."""
    text = page(*drawn(), without=None, fronts=[], rehearsal=rehearsal())
    assert 'id="rehearsal"' in text
    assert 'id="rehearsal-data"' in text
    assert "Links and compute are held to the plan." in text
    assert 'id="rehearsal"' not in page(*drawn(), without=None, fronts=[])


def test_tables_of_the_page_have_exact_numbers() -> None:
    """Each step to the microsecond, with what it is."""
    steps = steps_table(rehearsal())
    assert steps.columns == ("device", "step", "predicted [ms]", "p10 [ms]", "p50 [ms]", "p99 [ms]", "change", "is")
    assert steps.rows[4] == ("far", "send", "2.000", "2.000", "2.010", "2.100", "+0%", "held")
    assert [(r[0], r[1], r[3]) for r in rehearsed_latencies_table(rehearsal()).rows] == [
        ("gateway", "5.000", "5.600"),
        ("far", "6.500", "6.530"),
        ("all", "7.000", "6.650"),
    ]
    assert rehearsed_memory_table(rehearsal()).rows[0] == ("gateway", "96 MiB", "80 MiB", "64 MiB", "50 MiB")
