"""Time limits and Ctrl-C: a plan with its gap, or a sentence that is true."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import lru_cache
from pathlib import Path

import pytest

from benchmarks.solve.instances import Size, instance
from planner.errors import InfeasibleError, PlannerError, TimeLimitError
from planner.rules.check import check
from planner.schema import Fleet, Goal, Profile, to_json
from planner.solver import SolveOptions, solve
from tests.helpers.accuracy import predictable
from tests.helpers.goals import floored
from tests.helpers.random_instances import random_fleet, random_profile
from tests.helpers.solver_instances import DIGITS, changed, roomy, sharpened

LARGE = Size("300x30", 300, 30, 4)
LARGEST = Size("1000x100", 1000, 100, 5)


@pytest.mark.parametrize(
    ("num_classes", "num_devices"),
    [(12, 8), (40, 20)],
)
@pytest.mark.parametrize("tightness", [0.12, 0.3, 2.0])
@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.5])
def test_out_of_time_is_not_impossible(num_classes: int, num_devices: int, tightness: float, seconds: float) -> None:
    """Out of time there is a valid plan, or a sentence that says so; never that no plan exists."""
    drawn = random_profile(num_classes, num_classes=num_classes, **DIGITS)
    # One device holds the whole model, so there is a plan.
    on = roomy(random_fleet(drawn, 1, num_devices=num_devices, tightness=tightness), num_devices - 1)
    plan_or_sentence(drawn, on, floored(), seconds)


def plan_or_sentence(drawn: Profile, on: Fleet, goal: Goal, seconds: float) -> bool:
    """Return whether there is a plan, which then passes the check; otherwise the message must be of the time limit."""
    try:
        plan = solve(drawn, on, goal, SolveOptions(time_limit_s=seconds))
    except TimeLimitError as error:
        assert str(error) == (  # noqa: PT017
            f"No plan found within {seconds:g} s (not proven impossible). Raise `time_limit_s`."
        )
        return False
    assert check(plan, drawn, on) == []
    assert plan.bound_us <= plan.latency_us
    assert plan.gap == pytest.approx(abs(plan.value - plan.bound) / plan.value)
    return True


@lru_cache
def large(size: Size) -> tuple[Profile, Fleet]:
    """Return a generated fleet for a ViT-Base of many classes."""
    return instance(size)


@pytest.mark.parametrize("size", [LARGE, LARGEST], ids=lambda size: size.name)
def test_no_time_for_a_large_fleet(size: Size) -> None:
    """A tenth of a second proves nothing, and the processor's time is not much more."""
    drawn, on = large(size)
    began = time.process_time()
    plan_or_sentence(drawn, on, floored(), 0.1)
    assert time.process_time() - began < 20


@pytest.mark.parametrize("objective", ["accuracy", "energy", "devices"])
@pytest.mark.parametrize("seconds", [0.0, 0.05])
def test_no_time_for_any_objective(objective: str, seconds: float) -> None:
    """Out of time, few and many classes end in the same way for every objective."""
    for num_classes in (10, 20):
        drawn = predictable(random_profile(5, num_classes=num_classes, num_groups=16, num_heads=4), 5)
        on = roomy(random_fleet(drawn, 5, num_devices=5, tightness=0.5), 4)
        goal = floored(objective=objective, max_latency_ms=10_000)
        plan_or_sentence(drawn, on, goal, seconds)


@lru_cache
def sharing(num_classes: int, num_devices: int) -> tuple[Profile, Fleet]:
    """Return classes that need different units, on about equal devices: hard to prove optimal."""
    drawn = random_profile(3, num_classes=num_classes, num_groups=8)
    widths = [width | {"fixed_macs": 0} for width in drawn.model_dump(mode="json")["widths"]]
    drawn = changed(sharpened(drawn), widths=widths, fusion_hidden=1)
    device = {"memory_budget": 10**6, "runtime_overhead": 0}
    devices = [device | {"name": f"d{i}", "macs_per_second": 2e6 + i * 1e5} for i in range(num_devices)]
    link = {"bandwidth_mbps": 1000, "latency_ms": 0.001}
    return drawn, Fleet.model_validate({"aggregator": "d0", "devices": devices, "default_link": link})


def test_an_undecided_latency_limit_is_reported_as_such() -> None:
    """Between the bound and the best plan, the message says what is possible so far and what is not."""
    drawn, on = sharing(20, 6)
    plan = solve(drawn, on, floored(), SolveOptions(time_limit_s=0.5))
    assert plan.status == "feasible"
    goal = floored(max_latency_ms=(plan.bound_us + 1) / 1000)
    with pytest.raises(TimeLimitError, match=r"No plan within [\d.]+ ms was found; the best takes [\d.]+ ms, and none"):
        solve(drawn, on, goal, SolveOptions(time_limit_s=0.5))
    with pytest.raises(InfeasibleError, match=rf"no plan takes less than {plan.bound_us / 1000:.3f} ms"):
        solve(drawn, on, floored(max_latency_ms=(plan.bound_us - 1) / 1000), SolveOptions(time_limit_s=0.5))


@pytest.mark.parametrize(("num_classes", "num_devices"), [(13, 2), (20, 6)])
def test_counted_work_ends(num_classes: int, num_devices: int) -> None:
    """With work counted instead of seconds, the search of many classes on few devices ends with a plan."""
    code = (
        "import sys; from planner.schema import Fleet, Goal, Profile; from planner.solver import SolveOptions, solve; "
        "read = [t.model_validate_json(s) for t, s in zip((Profile, Fleet), sys.stdin.read().splitlines())]; "
        "options = SolveOptions(time_limit_s=0.3, deterministic=True); "
        "plans = [solve(*read, Goal(min_retention=0.5), options) for _ in range(2)]; "
        "assert plans[0].assignments == plans[1].assignments"
    )
    text = "".join(f"{document.model_dump_json()}\n" for document in sharing(num_classes, num_devices))
    # In a process of its own: what never ends can be ended.
    subprocess.run([sys.executable, "-c", code], input=text, text=True, check=True, timeout=600)


# --- Ctrl-C


reads_proc = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def processor_s(pid: int) -> float:
    """Return the processor's time that a process has taken, also one that has ended but was not waited for [s]."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def interrupted(tmp_path: Path, drawn: Profile, on: Fleet, after_s: float, *flags: str) -> tuple[int, str, str, float]:
    """Run `planner solve`, press Ctrl-C, and return exit code, stdout, stderr and the seconds until the end.

    All seconds are the processor's, so that a busy machine changes nothing.
    """
    (tmp_path / "profile.json").write_text(to_json(drawn))
    (tmp_path / "devices.json").write_text(to_json(on))
    command = [
        str(Path(sys.executable).with_name("planner")),
        "solve",
        "--time-limit",
        "600",
        "--min-retention",
        "0.5",
        *flags,
    ]
    command += ["--devices", str(tmp_path / "devices.json"), "--profile", str(tmp_path / "profile.json")]
    environment = os.environ | {"COLUMNS": "80"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as run:
        try:
            # An ended process that was not waited for still has its number.
            ended = os.WEXITED | os.WNOWAIT
            while processor_s(run.pid) < after_s and os.waitid(os.P_PID, run.pid, ended | os.WNOHANG) is None:
                time.sleep(0.01)
            pressed_s = processor_s(run.pid)
            os.kill(run.pid, signal.SIGINT)
            os.waitid(os.P_PID, run.pid, ended)
            seconds = processor_s(run.pid) - pressed_s
            stdout, stderr = run.communicate()
        finally:
            run.kill()
        return run.returncode, stdout, stderr, seconds


@reads_proc
@pytest.mark.parametrize("after_s", [2.0, 4.0])
def test_ctrl_c_takes_what_there_is(tmp_path: Path, after_s: float) -> None:
    """After Ctrl-C there is a plan with its gap, or one sentence, within seconds."""
    drawn, on = large(Size("200x20", 200, 20, 4))
    code, stdout, stderr, seconds = interrupted(tmp_path, drawn, on, after_s)
    assert "Traceback" not in stderr
    if code == 0:
        assert re.search(r"(FEASIBLE|OPTIMAL) plan: latency [\d.,]+ ms, bound [\d.,]+ ms, gap [\d.]+%", stdout)
    else:
        assert code in (1, 130)
        assert len(stderr.strip().splitlines()) == 1
        assert stdout == ""
    assert seconds < 30


@reads_proc
def test_ctrl_c_ends_the_exact_method(tmp_path: Path) -> None:
    """Ctrl-C during a long proof gives the best plan so far, with its bound, as JSON."""
    drawn = random_profile(8, num_classes=12, depth=12, num_heads=12, num_groups=96)
    on = random_fleet(drawn, 8, num_devices=10, tightness=0.25)
    code, stdout, stderr, seconds = interrupted(tmp_path, drawn, on, 5.0, "--json")
    assert "Traceback" not in stderr
    assert seconds < 10
    if code == 0:
        plan = json.loads(stdout)
        assert plan["bound_us"] <= plan["latency_us"]
    else:
        assert code == 1
        assert len(stderr.strip().splitlines()) == 1


@reads_proc
def test_ctrl_c_ends_an_explanation(tmp_path: Path) -> None:
    """Ctrl-C also ends the search for repairs."""
    drawn = random_profile(8, num_classes=12, depth=6, num_heads=6, num_groups=32)
    on = random_fleet(drawn, 8, num_devices=10, tightness=0.25)
    code, stdout, stderr, seconds = interrupted(tmp_path, drawn, on, 5.0, "--survive", "9", "--leave-out", "d9")
    assert (code, stdout) == (1, ""), stderr
    assert "Traceback" not in stderr
    assert stderr.startswith("No plan")
    assert seconds < 10


def test_errors_of_the_search_are_raised_where_it_was_asked_for() -> None:
    """Errors of the search's own thread are raised in the calling one."""
    drawn = random_profile(1)
    with pytest.raises(PlannerError, match=r"\ANo plan: "):
        solve(drawn, random_fleet(drawn, 1), floored(survive=50))
