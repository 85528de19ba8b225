"""Workers that are killed: no job is lost, none is completed twice, and what is completed can be opened."""

import pytest
from server import crashes


@pytest.mark.slow
def test_kill_9_at_random_moments_loses_no_job_and_completes_none_twice(database_url, tmp_path):
    said = crashes(database_url, tmp_path / "archive", count=10, kills=5, crew=2, patience=240)
    assert said["kills"] == 5
    assert (said["completed"], said["lost"], said["completed twice"], said["without a file"]) == (10, 0, 0, 0)
    assert said["attempts"] > 10  # some were indeed begun again
