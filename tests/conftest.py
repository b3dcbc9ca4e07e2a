"""What every test shares: one thread per process, no network, repeatable hypothesis runs, and where real data lies."""

from __future__ import annotations

import os
import sys
from pathlib import Path

for _name, _value in {
    "OMP_NUM_THREADS": "1",  # several test processes share the machine
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MPLBACKEND": "Agg",
}.items():
    os.environ.setdefault(_name, _value)

import hypothesis  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)

hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "here")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test starts from the same random state, whatever ran before it in its process."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _accelerate_starts_anew() -> None:
    """Accelerate, and a Trainer through it, keeps state in its classes: a test would go on with what the last one left."""
    if "accelerate" in sys.modules:
        from accelerate.state import AcceleratorState, GradientState

        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder that holds ``data/`` and ``models/``; without it the test is skipped."""
    folder = os.environ.get("SECATEURS_DATA")
    if not folder:
        pytest.skip("needs real data: set SECATEURS_DATA to the folder that holds data/ and models/")
    return Path(folder)
