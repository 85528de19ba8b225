"""Workers that are killed: no job is lost, none is completed twice, and what is completed can be opened."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture
def bench():
    path = Path(__file__).parents[2] / "benchmarks" / "server.py"
    spec = importlib.util.spec_from_file_location("bench_server", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_kill_9_at_random_moments_loses_no_job_and_completes_none_twice(database_url, tmp_path, bench):
    said = bench.crashes(database_url, tmp_path / "archive", count=6, kills=3, crew=2, patience=240)
    assert said["kills"] == 3
    assert (said["completed"], said["lost"], said["completed twice"], said["without a file"]) == (6, 0, 0, 0)
    assert said["attempts"] > 6  # some were indeed begun again
