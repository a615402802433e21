"""What-if rows and Pareto points in round numbers, as frames like the planner's own."""

import pandas as pd

NONE = float("nan")


def what_ifs(*extra: tuple[str, str, float, float, str | None]) -> pd.DataFrame:
    """Return today at 10 ms, one scenario faster, one slower, one the same and one impossible."""
    rows = [
        ("today", "optimal", 10_000, 0, None),
        ("without a", "optimal", 12_500, 2500, None),
        ("+ 2 b", "feasible", 8000, -2000, None),
        ("without c", "optimal", 10_000, 0, None),
        ("without d", "impossible", NONE, NONE, "No plan: d has the image and joins the features."),
        *extra,
    ]
    frame = pd.DataFrame(rows, columns=["scenario", "status", "latency_us", "change_us", "reason"])
    numbers = {"bound_us": frame["latency_us"], "gap": 0.0, "devices_used": 2, "memory_bytes": 2048}
    numbers |= {"classes_moved": 1, "bytes_to_send": 4096, "bottleneck": "a"}
    scenarios: pd.DataFrame = frame.assign(**numbers).set_index("scenario")
    return scenarios


def front(against: str = "accuracy") -> pd.DataFrame:
    """Return three points against accuracy, memory or energy; the middle one is not proven."""
    limits = {"accuracy": (0.1, 0.02, 0.01), "memory": (0.5, 0.75, 1.0), "energy": (2.0, 3.0, 4.0)}[against]
    values = {"accuracy": (0.9, 0.97, 0.98), "memory": (2**20, 2**21, 2**22), "energy": (1.9, 2.8, 4.0)}[against]
    latencies, bounds = (4000, 6000, 9000), (4000, 5000, 9000)
    columns = {"limit": limits, "value": values, "latency_us": latencies, "bound_us": bounds}
    statuses = ["optimal", "feasible", "optimal"]
    points: pd.DataFrame = pd.DataFrame(columns).assign(against=against, gap=[0.0, 1 / 6, 0.0], status=statuses)
    return points
