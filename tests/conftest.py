from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Tests are never timed: the machine may be busy.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of the data sets; it may lack any of them, and a test then skips."""
    given = os.environ.get("VAEGUARD_DATA")
    shared = CHECKOUT.parent / "shared" / "data"
    return Path(given) if given else shared if shared.is_dir() else CHECKOUT / "data"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """No test reads or leaves anything in the user's cache."""
    monkeypatch.setenv("VAEGUARD_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
