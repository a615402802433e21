"""`planner probe make` and `planner probe add` as a user meets them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from planner.cli import app
from planner.network.vit import Shape
from planner.profiler.device import latency_table, probe_folder
from planner.schema import Profile, read_document
from planner.schema.base import write_text
from tests.helpers.common import PATIENCE_S, Json
from tests.helpers.pencil import profile_data
from tests.helpers.timed_networks import WIDTHS, c_result_data, result_data


def planner(*args: str | Path) -> Any:
    """Run a command in this process, at 80 columns."""
    return CliRunner().invoke(app, [str(arg) for arg in args], env={"COLUMNS": "80"})


def refused(result: Any, *parts: str) -> None:
    """Assert one clean sentence on stderr, nothing on stdout, and exit code 2."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    for part in parts:
        assert part in result.stderr


def latency_file(tmp_path: Path, **changes: object) -> Path:
    """Write the synthetic latency.json with some keys changed."""
    path = tmp_path / "latency.json"
    write_text(path, json.dumps(result_data() | changes))
    return path


def test_add_shows_a_table_and_writes_the_profile(tmp_path: Path) -> None:
    """The table has coefficients and held-out errors for each width and precision; the profile gets rows."""
    out = tmp_path / "profile.json"
    latency = latency_file(tmp_path)
    result = planner("probe", "add", latency, "-p", "digits-vit", "--kind", "my-board", "--threads", "4", "--out", out)
    assert result.exit_code == 0, result.output
    assert max(len(line) for line in result.stdout.splitlines() if str(out) not in line) <= 80
    for part in ("my-board: microseconds, and error on held-out networks", "float32", "int8", "p95", "is a new kind"):
        assert part in result.stdout
    rows = read_document(out, Profile).latency["my-board"]
    assert {(r.precision, r.embed_dim) for r in rows} == {(p, e) for p in ("float32", "int8") for e in WIDTHS}
    assert all("4 threads" in r.source for r in rows)
    before = out.read_text()
    over = planner("probe", "add", latency, "--profile", out, "--kind", "raspberry-pi-5")
    assert over.exit_code == 0, over.output
    assert "new kind" not in over.stdout
    assert set(read_document(out, Profile).latency) == {*Profile.model_validate_json(before).latency, "raspberry-pi-5"}


def test_what_add_refuses(tmp_path: Path) -> None:
    """A shipped profile without --out, a missing or wrong file and an untimed thread count are refused."""
    latency, out = latency_file(tmp_path), tmp_path / "profile.json"
    to = ("--profile", "digits-vit", "--kind", "my-board", "--out", out)
    refused(planner("probe", "add", latency, *to[:4]), "--out must say where", "'digits-vit' is a shipped one")
    refused(planner("probe", "add", tmp_path / "none.json", *to), "none.json: no such file")
    refused(planner("probe", "add", latency, *to, "--threads", "2"), "latency.json: --threads must be one of", "got 2")
    write_text(tmp_path / "text.json", "hello")
    refused(planner("probe", "add", tmp_path / "text.json", *to), "text.json: line 1, column 1: not JSON")
    refused(
        planner("probe", "add", latency_file(tmp_path, complete=False), *to), "latency.json: complete: must be true"
    )
    assert not out.exists()


def test_what_make_refuses(tmp_path: Path) -> None:
    """An unknown model or precision, a file, and a folder of other files are refused before any export."""
    refused(planner("probe", "make", "digit-vit", "--out", tmp_path / "new"), "did you mean 'digits-vit'")
    write_text(tmp_path / "thesis.txt", "")
    make = ("probe", "make", "digits-vit", "--out")
    refused(planner(*make, tmp_path), "must be a new or empty folder, got one that holds 'thesis.txt'")
    refused(planner(*make, tmp_path / "thesis.txt"), "thesis.txt: must be a folder, got a file")
    for wrong in ("float16", "int8,int8", ""):
        refused(planner(*make, tmp_path / "new", "--precision", wrong), "must be one or both of float32, int8", wrong)
    refused(planner(*make, tmp_path / "new", "--storage", "1MiB"), "--storage must be given for --engine c alone")
    in_c = (*make, tmp_path / "new", "--engine", "c", "--storage")
    refused(planner(*in_c, "1mb"), "--storage: must be a number of bytes or a size", "did you mean '1MiB' or '1MB'?")
    refused(planner(*in_c, "20000"), "--storage: must be above", "got 19.5 KiB")
    assert not (tmp_path / "new").exists()


def test_make_in_c_and_add(tmp_path: Path) -> None:
    """The folder says what to run; times in C stand beside those of ONNX Runtime in the profile."""
    made = planner("probe", "make", "digits-vit", "--out", tmp_path / "probes", "--engine", "c", "--storage", "256KiB")
    assert made.exit_code == 0, made.output
    assert "48 networks of digits-vit" in made.stdout
    assert "make && ./probe > latency.json" in made.stdout
    readme = (tmp_path / "probes" / "README.md").read_text()
    assert "Probes of digits-vit in C" in readme
    assert "{" not in readme.replace("{\n", "").replace("probe_platform board = {", "").replace("first `{`", "")
    write_text(tmp_path / "latency.json", json.dumps(c_result_data()))
    out = tmp_path / "profile.json"
    added = planner("probe", "add", tmp_path / "latency.json", "-p", "digits-vit", "--kind", "local", "--out", out)
    assert added.exit_code == 0, added.output
    assert "local, engine c: microseconds" in added.stdout
    rows = read_document(out, Profile).latency["local"]
    assert {row.engine for row in rows} == {"onnxruntime", "c"}
    shown = planner("profile", out, "--show")
    assert shown.exit_code == 0, shown.output
    assert "local: microseconds" in shown.stdout
    assert "local, engine c: microseconds" in shown.stdout


def tiny_profile(whole: Shape) -> Json:
    """Return the pencil profile adapted to this model of one block and one width."""
    num_heads, channels = whole.num_heads[0], whole.hidden_dim[0]
    width = profile_data()["widths"][0] | {
        name: [1] for name in ("head_macs", "channel_macs", "head_params", "channel_params")
    }
    units = {"heads": [[[0.5 / num_heads] * num_heads]] * 2, "channel_groups": [[[0.5]]] * 2}
    return profile_data() | {
        "model": "digits-vit",
        "depth": 1,
        "num_heads": num_heads,
        "hidden_dim": channels,
        "channel_groups": [[list(range(channels))]],
        "widths": [width],
        "importance": units,
    }


def test_from_a_model_to_its_latency_on_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three networks of one block are exported, timed by the script and fitted to rows of a profile."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    whole = Shape(4, 2, 1, 2, embed_dim=8, head_dim=4, num_heads=(2,), hidden_dim=(16,))
    monkeypatch.setattr(probe_folder, "whole_shape", lambda card: whole)
    monkeypatch.setattr(probe_folder, "NUM_NETWORKS", 3)
    # So few networks cannot foretell each other.
    monkeypatch.setattr(latency_table, "SPARE_NETWORKS", 0)
    monkeypatch.setattr(latency_table, "_REFUSE_MAPE", 1e9)
    folder = tmp_path / "probes"
    made = planner("probe", "make", "digits-vit", "--out", folder)
    assert made.exit_code == 0, made.output
    assert "6 networks of digits-vit" in made.stdout
    networks = {f"n0{i}-{precision}.onnx" for i in (1, 2, 3) for precision in ("float32", "int8")}
    assert {p.name for p in folder.iterdir()} == {"manifest.json", "probe.py", "weights.bin", *networks}
    refused(planner("probe", "make", "digits-vit", "--out", folder), "got one that holds 'manifest.json'")
    # Of the shared weights no network reads more than its own.
    assert (folder / "weights.bin").stat().st_size < 20_000

    command = [sys.executable, "probe.py", "--threads", "1", "--seconds", "0"]
    timed = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S)
    assert timed.returncode == 0, timed.stderr
    assert "6 timings" in timed.stdout

    profile = tmp_path / "profile.json"
    write_text(profile, json.dumps(tiny_profile(whole)))
    added = planner("probe", "add", folder / "latency.json", "--profile", profile, "--kind", "here")
    assert added.exit_code == 0, added.output
    rows = read_document(profile, Profile).latency["here"]
    assert [(r.embed_dim, r.precision) for r in rows] == [(8, "float32"), (8, "int8")]
    # A network of two small products takes microseconds, not seconds.
    assert all(0 < r.fixed_us + r.attention_us + r.head_us + r.mlp_us + r.channel_us < 1e5 for r in rows)
