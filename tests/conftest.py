"""One thread for every test, as small networks train many times slower on two, and the same random numbers.

Torch is not imported here: a session that tests the solver alone never pays for it.
"""

import os
import sys

import pytest

# Read by torch's thread pools when torch is imported, by this process or by one that a test starts.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")


@pytest.fixture(autouse=True)
def _same_torch_for_all() -> None:
    """Keep torch on one thread and seed it, where it is in use: tests draw the same in any order."""
    torch = sys.modules.get("torch")
    if torch is None:
        return
    torch.manual_seed(0)
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)
