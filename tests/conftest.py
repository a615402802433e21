"""One thread for every test: small networks train many times slower on two.

Torch is not imported here: a session that tests the solver alone never pays for it.
"""

import os
import sys

import pytest

# Read by torch's thread pools when torch is imported, by this process or by one that a test starts.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Keep torch on one thread, where it is in use."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)
