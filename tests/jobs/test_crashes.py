"""Workers that are killed, databases that are stopped: no job is lost, none is completed twice."""

import pytest
from server import crashes, restarts


@pytest.mark.slow
def test_kill_9_at_random_moments_loses_no_job_and_completes_none_twice(database_url, tmp_path):
    said = crashes(database_url, tmp_path / "archive", count=6, kills=3, crew=2, patience=240)
    assert said["kills"] == 3
    assert (said["completed"], said["lost"], said["completed twice"], said["without a file"]) == (6, 0, 0, 0)
    assert said["attempts"] > 6  # some were indeed begun again


@pytest.mark.slow
def test_a_postgresql_that_is_stopped_again_and_again_loses_no_job_and_nobody_hears_of_a_fault_of_ours(
    cluster, tmp_path
):
    said = restarts(tmp_path, minutes=0.2, pause=(1, 2), away=(6, 7), crew=1, clients=2)  # longer than its patience
    assert said["restarts"] >= 2
    assert "503" in said["answers"]
    assert said["jobs"] > 3
    assert (said["lost"], said["completed twice"], said["neither 200 nor 503"]) == (0, 0, 0), said
