"""Jobs, each in a process of its own, and their results in a file, from which a stopped run continues."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.solve.child import DIRECT, Result
from benchmarks.solve.instances import ROOT, Size
from planner.schema.base import write_text

WORK = ROOT / "build" / "bench-solve"
# Time [s] beyond its time limit that a job may take to read, to build a model, to check.
_GRACE_S = 240.0

_COMMON = (
    "benchmarks/solve/instances.py",
    "planner/rules/cost.py",
    "planner/rules/links.py",
    "planner/rules/floors.py",
)
_OF_DIRECT = ("benchmarks/solve/formulation.py", "benchmarks/solve/linear.py", "benchmarks/solve/direct.py")


@dataclass(frozen=True)
class Job:
    """Run of one method on one instance."""

    size: Size
    method: str
    time_limit_s: float
    seed: int = 0

    @property
    def key(self) -> str:
        """Key of the job's result."""
        return json.dumps([asdict(self.size), self.method, self.time_limit_s, self.seed])

    @property
    def code(self) -> str:
        """Hash of the code that determines the result: results of other code are computed again."""
        paths = [ROOT / name for name in (*_COMMON, *(_OF_DIRECT if self.method in DIRECT else ()))]
        if self.method not in DIRECT:
            paths += sorted((ROOT / "planner" / "solver").rglob("*.py"))
        return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:16]


class JobResults:
    """Results of earlier jobs, in a file."""

    def __init__(self, path: Path, fresh: bool = False) -> None:
        self.path = path
        is_cached = not fresh and path.exists()
        self.results: dict[str, Result] = json.loads(path.read_text()) if is_cached else {}

    def result(self, job: Job) -> Result:
        """Return a job's result, run now unless it is cached."""
        cached = self.results.get(job.key)
        if cached is not None and cached["code"] == job.code:
            return cached
        print(f"{job.size.name}: {job.method}, seed {job.seed} ...", end="", file=sys.stderr, flush=True)
        result = _run(job) | {"code": job.code}
        self.results[job.key] = result
        write_text(self.path, json.dumps(self.results, indent=1) + "\n")
        print(f" {_summary(result)}", file=sys.stderr, flush=True)
        return result


def _run(job: Job) -> Result:
    """Run a job in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        job_file, out = Path(folder) / "job.json", Path(folder) / "result.json"
        job_file.write_text(json.dumps(asdict(job)))
        command = [sys.executable, "-m", "benchmarks.solve.child", str(job_file), str(out)]
        max_s = job.time_limit_s + _GRACE_S
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=max_s
            )
        except subprocess.TimeoutExpired:
            return {"status": "stopped", "seconds": max_s, "note": f"stopped after {max_s:g} s"}
        if done.returncode == 0:
            result: Result = json.loads(out.read_text())
            return result
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        return {"status": "failed", "seconds": None, "note": f"exit code {done.returncode}: {last[:200]}"}


def _summary(result: Result) -> str:
    latency_us, seconds = result.get("latency_us"), result["seconds"]
    duration = "" if seconds is None else f" in {seconds:.1f} s"
    if latency_us is None:
        return f"{result['note'] or result['status']}{duration}"
    return f"{latency_us / 1000:.1f} ms (bound {result['bound_us'] / 1000:.1f} ms){duration}"
