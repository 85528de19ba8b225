"""Where the tests of pretrained models find their tiny checkpoints: built once, kept in pytest's cache."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import cases


@pytest.fixture(scope="session")
def home(pytestconfig):
    """The folder of the tiny checkpoints of these versions."""
    return Path(pytestconfig.cache.mkdir(f"pretrained-{cases.key()}"))


@pytest.fixture(autouse=True, scope="package")
def alone():
    """One thread: so little work is done sooner without a second, which must be waited for."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def forgotten():
    """No engine outlives its test, and none leaves its attention to the others."""
    yield
    from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry

    from kinetograph.engine import warm

    warm.clear()
    assert _AttentionBackendRegistry.get_active_backend()[0] == AttentionBackendName.NATIVE
