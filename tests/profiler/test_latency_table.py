"""Timings of a device become rows of a profile, or are refused in one sentence that says what to do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from planner.errors import InputError
from planner.profiler.device.latency_table import latency_table, with_table
from planner.schema import ProbeManifest, ProbeResult, read_document, sha256_of
from planner.schema.base import write_text
from tests.helpers.common import Json
from tests.helpers.timed_networks import WIDTHS, c_result_data, coefficients, digits_profile, result, result_data


def changed(change: Callable[[Json], Any]) -> ProbeResult:
    """Return the latency.json after a change to its data."""
    data = result_data()
    change(data)
    return ProbeResult.model_validate(data)


def timing(data: Json, network: str, precision: str = "float32", threads: int = 1) -> Json:
    """Return one timing of the manifest's data."""
    key = (network, precision, threads)
    found: list[Json] = [t for t in data["timings"] if (t["network"], t["precision"], t["threads"]) == key]
    return found[0]


def test_rows_for_each_width_and_precision() -> None:
    """Rows have the true coefficients for each precision and thread count, and name their source."""
    steady = ProbeResult.model_validate(result_data(noise=0.002))
    one = latency_table(steady, digits_profile(), threads=1)
    assert [(r.precision, r.embed_dim) for r in one.rows] == [(p, e) for p in ("float32", "int8") for e in WIDTHS]
    four = latency_table(steady, digits_profile(), threads=4)
    for row, slower in zip(four.rows, one.rows, strict=True):
        assert row.head_us == pytest.approx(0.6 * slower.head_us, rel=0.06)
    true = coefficients(64)
    assert one.rows[0].channel_us == pytest.approx(true[4], rel=0.05)
    assert one.rows[len(WIDTHS)].channel_us == pytest.approx(0.7 * true[4], rel=0.05)
    assert one.rows[-1].source == (
        "measured: onnxruntime 1.19.2, int8, 1 thread, Raspberry Pi 5 Model B (aarch64), 24 networks"
    )
    assert one.notes == ()
    assert all(row.mape is not None and 0 < row.mape < 0.03 for row in one.rows)


def test_disturbed_rounds_are_not_fitted() -> None:
    """Rounds stretched by other work, never all of a network, do not change the coefficients.

    All are longer by one factor, what the medians are on the whole; the errors are those of steady times.
    """
    data = result_data(noise=0.002)
    for i, t in enumerate(data["timings"]):
        us = t["median_us"]
        t["median_us"] = us * (1.25 + 0.25 * (i % 7 - 3) / 3)
        t["rounds_us"] = [us, t["median_us"], 2 * us]
    table = latency_table(ProbeResult.model_validate(data), digits_profile(), threads=1)
    assert table.rows[0].channel_us == pytest.approx(1.25 * coefficients(64)[4], rel=0.05)
    assert all(row.mape is not None and row.mape < 0.03 for row in table.rows)


def test_rows_replace_those_of_the_same_width_and_precision() -> None:
    """Adding again replaces a kind's rows of the same precision; all others stay."""
    profile = digits_profile()
    rows = latency_table(result(), profile, threads=1).rows
    float32 = [row for row in rows if row.precision == "float32"]
    first = with_table(profile, "board", rows)
    again = with_table(first, "board", float32)
    assert set(again.latency["board"]) == set(rows)
    assert again.latency["local"] == profile.latency["local"]
    assert first.importance == profile.importance


def test_a_width_of_the_profile_that_was_not_timed_gets_a_row() -> None:
    """A width between the timed ones is predicted; one below all of them is refused."""
    profile = digits_profile()
    width = profile.widths[0].model_dump()
    at_40 = profile.model_validate(profile.model_dump() | {"widths": [width, width | {"embed_dim": 40}]})
    rows = {r.embed_dim: r for r in latency_table(result(), at_40, threads=1).rows if r.precision == "float32"}
    assert rows[40].channel_us == pytest.approx(coefficients(40)[4], rel=0.05)
    at_4 = profile.model_validate(profile.model_dump() | {"widths": [width, width | {"embed_dim": 4}]})
    with pytest.raises(InputError, match=r"widths: the profile has embed_dim 4, narrower than all .* \(16\); make the"):
        latency_table(result(), at_4, threads=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["manifest"].update(model="other-vit"), "whose model is digits-vit, got .* model is other-vit"),
        (lambda d: d["manifest"].update(num_tokens=50), "whose num_tokens is 17, got those .* is 50"),
        (lambda d: d["manifest"].update(hidden_dim=300), "whose hidden_dim is 256, got .* 300; make the probes of"),
        (lambda d: d["manifest"].update(gated_mlp=True), "whose gated_mlp is False, got .* True; make the probes of"),
        (lambda d: d["manifest"].update(qk_norm="rms_norm"), "whose qk_norm is None, got .* rms_norm; make the probes"),
        (lambda d: d.update(manifest_sha256="0" * 64), r"SHA-256 must be 000000000000\.\.\., got .* not the one"),
        (lambda d: d["timings"].remove(timing(d, "n07", "int8")), "timed on 1 thread, n07 int8 was not; run python"),
        (lambda d: d["timings"].__delitem__(slice(0, 5)), "n01 float32 and 4 more was not; run python probe.py again"),
        (lambda d: d.update(complete=False), "complete: must be true, got an interrupted run; run"),
        (lambda d: timing(d, "n05").update(median_us=1e5), r"'n05' \(float32, 1 thread\) must take .* 1e\+05 us; run"),
        (lambda d: timing(d, "n11", "int8").update(median_us=0.01), r"'n11' \(int8, 1 thread\) must .* 0.01 us; run"),
    ],
)  # fmt: skip
def test_untrustworthy_timings_are_refused(change: Callable[[Json], Any], message: str) -> None:
    """Timings of another model, changed, incomplete or absurd: the message has both values and the remedy."""
    with pytest.raises(InputError, match=message):
        latency_table(changed(change), digits_profile(), threads=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: timing(d, "n03").update(median_us=-1.5), r"timings\[2\]: median_us must be > 0, got -1.5"),
        (lambda d: timing(d, "n03").update(median_us=0), r"timings\[2\]: median_us must be > 0, got 0"),
        (lambda d: timing(d, "n03").update(median_us=float("nan")), "numbers must be finite, got NaN"),
        (lambda d: timing(d, "n03").update(network="n99"), "network 'n99' must be one of the manifest's"),
        (lambda d: timing(d, "n03").update(network="n02"), "timings and failures: entries must differ, got .*n02"),
        (lambda d: d.update(timmings=[]), "unknown key 'timmings'; did you mean 'timings'"),
        (lambda d: d.pop("device"), "device is missing"),
        (lambda d: d["manifest"]["networks"][1].update(num_heads=[9, 0, 0, 0]), "num_heads must be 4 numbers"),
        (lambda d: d["manifest"]["networks"][1].update(embed_dim=63), r"embed_dim must be one of \[64, 48.*got 63"),
    ],
)  # fmt: skip
def test_a_file_of_other_content_is_refused(tmp_path: Path, change: Callable[[Json], Any], message: str) -> None:
    """Wrong keys and impossible times are named with their place."""
    data = result_data()
    change(data)
    write_text(tmp_path / "latency.json", json.dumps(data))
    with pytest.raises(InputError, match=f"latency.json: .*{message}"):
        read_document(tmp_path / "latency.json", ProbeResult)


def test_a_thread_count_that_was_not_timed() -> None:
    """The message lists the timed counts and says how to time another one."""
    with pytest.raises(
        InputError, match=r"one of those timed \(1, 4\), got 2; run probe.py on the device with `threads=2`"
    ):
        latency_table(result(), digits_profile(), threads=2)


def failing(count: int) -> ProbeResult:
    """Return the latency.json of a device that could not run the last networks as int8."""
    data = result_data()
    for network in data["manifest"]["networks"][24 - count :]:
        key = {"network": network["name"], "precision": "int8", "threads": 1}
        data["timings"].remove(timing(data, network["name"], "int8"))
        data["failures"].append({**key, "reason": "MemoryError: no room"})
    return ProbeResult.model_validate(data)


def test_failed_networks_are_left_out_and_named() -> None:
    """With 3 of 24 networks failed, 21 are fitted, and a note names the missing ones and the reason."""
    table = latency_table(failing(3), digits_profile(), threads=1)
    assert table.rows[-1].source.endswith("21 networks")
    assert table.notes == (
        "int8 on 1 thread: the device could not run n22, n23, n24, which are left out (MemoryError: no room).",
    )


def test_a_precision_that_the_device_cannot_run_gets_no_rows() -> None:
    """When every int8 network failed, float32 still gets its rows."""
    table = latency_table(failing(24), digits_profile(), threads=1)
    assert {row.precision for row in table.rows} == {"float32"}
    assert "int8 on 1 thread: the device could not run n01, n02" in table.notes[0]


def test_a_device_that_runs_nothing() -> None:
    """When every network failed, the first reason is reported."""
    data = result_data()
    keys = [{k: t[k] for k in ("network", "precision", "threads")} for t in data["timings"]]
    failures = [key | {"reason": "MemoryError: no room"} for key in keys]
    with pytest.raises(InputError, match=r"at least one network must run .* float32 on 1 thread: .*MemoryError"):
        latency_table(result(timings=[], failures=failures), digits_profile(), threads=1)


def test_too_few_networks_left() -> None:
    """Ten parameters need 14 of 24 networks; 13 are refused."""
    latency_table(failing(10), digits_profile(), threads=1)
    with pytest.raises(InputError, match=r"int8 on 1 thread must have at least 14 networks .*, got 13 of 24; see its"):
        latency_table(failing(11), digits_profile(), threads=1)


def test_an_error_above_a_twentieth_is_a_note() -> None:
    """Times that are some 12 % off the model give rows with a note, which blames a steady device."""
    table = latency_table(ProbeResult.model_validate(result_data(noise=0.12)), digits_profile(), threads=1)
    assert len(table.rows) == 2 * len(WIDTHS)
    assert table.notes[0].startswith("float32 on 1 thread: times of new networks are off by ")
    assert "not a sum over heads and channels: plan with a margin" in table.notes[0]


def test_where_the_model_does_not_hold_nothing_is_added() -> None:
    """Erratic times are refused; where the rounds differ as much, the message blames the noise."""
    data = result_data(noise=0.5)
    with pytest.raises(InputError, match=r"to 20%, float32 on 1 thread is off by \d+%; .* not a sum over heads"):
        latency_table(ProbeResult.model_validate(data), digits_profile(), threads=1)
    for t in data["timings"]:
        t["spread"] = 0.4
    with pytest.raises(InputError, match=r"vary by up to 40%: run python probe.py again with nothing else running"):
        latency_table(ProbeResult.model_validate(data), digits_profile(), threads=1)


def test_the_hash_is_the_one_the_script_computes() -> None:
    """A manifest read back from its own JSON has the same hash."""
    manifest = result().manifest
    assert sha256_of(ProbeManifest.model_validate_json(manifest.model_dump_json())) == result().manifest_sha256


def test_times_in_c_make_rows_of_that_engine() -> None:
    """The rows bear the engine, the coefficients of the same times, and the compiler in place of versions."""
    of_c = latency_table(ProbeResult.model_validate(c_result_data()), digits_profile(), threads=1).rows
    others = latency_table(ProbeResult.model_validate(result_data(noise=0.002)), digits_profile(), threads=1).rows
    assert of_c[0].source == (
        "measured: engine c, GCC 12.2.0, float32, 1 thread, Raspberry Pi 5 Model B (aarch64), 24 networks"
    )
    assert [r.replace(engine="onnxruntime", source="") for r in of_c] == [r.replace(source="") for r in others]


def test_c_runs_on_one_thread() -> None:
    """So the message for another number names no script."""
    timed = ProbeResult.model_validate(c_result_data())
    with pytest.raises(InputError, match=r"those timed \(1\), got 4; sub-models in C run on one\."):
        latency_table(timed, digits_profile(), threads=4)


@pytest.mark.parametrize("data", [result_data(), c_result_data()], ids=["onnxruntime", "c"])
def test_the_device_must_tell_the_software_of_its_engine(data: Json) -> None:
    """Versions of the other engine's software are none."""
    others = {"onnxruntime": {"compiler": "GCC"}, "c": {"python": "3", "numpy": "2", "onnxruntime": "1"}}
    engine = data["manifest"].get("engine", "onnxruntime")
    device = {key: data["device"][key] for key in ("platform", "machine", "cpu", "cores")} | others[engine]
    with pytest.raises(InputError, match=rf"device: \w+ must be given for probes of engine '{engine}', got none"):
        ProbeResult(**data | {"device": device})


def test_no_row_is_wider_than_what_was_timed() -> None:
    """Where the flash holds none of the widest networks, the table ends at the widest that it holds."""
    data = c_result_data()
    networks = [n for n in data["manifest"]["networks"] if n["embed_dim"] <= 32]
    # As many others of these widths, so that there are enough.
    names = {n["name"] for n in networks}
    data["manifest"]["networks"] = networks
    data["manifest_sha256"] = sha256_of(ProbeManifest.model_validate(data["manifest"]))
    data["timings"] = [t for t in data["timings"] if t["network"] in names]
    rows = latency_table(ProbeResult.model_validate(data), digits_profile(), threads=1).rows
    assert sorted({row.embed_dim for row in rows}) == [16, 24, 32]
    assert rows[0].channel_us == pytest.approx(coefficients(32)[4], rel=0.1)


def test_a_manifest_of_few_pooled_tokens_makes_rows_with_a_last_block() -> None:
    """Where it says nothing of them, all blocks are alike, and the rows say nothing either."""
    data = c_result_data()
    data["manifest"]["num_pooled_tokens"] = 1
    data["manifest_sha256"] = sha256_of(ProbeManifest.model_validate(data["manifest"]))
    rows = latency_table(ProbeResult.model_validate(data), digits_profile(), threads=1).rows
    # Of 17 tokens one is read; keys and values are needed of all. MACs of a head by hand, at embed dims 64 and 16.
    for row, share in ((rows[0], 37_408 / 78_880), (rows[len(WIDTHS) - 1], 9_760 / 26_656)):
        assert row.last_channel_us == pytest.approx(row.channel_us / 17, abs=1e-4)
        assert row.last_head_us == pytest.approx(row.head_us * share, abs=1e-4)
    plain = latency_table(ProbeResult.model_validate(c_result_data()), digits_profile(), threads=1).rows
    assert all(row.last_head_us is None and row.last_channel_us is None for row in plain)
    assert "last_head_us" not in plain[0].model_dump()
