"""Our own server passes the conformance suite, every point of it, and the documentation says so."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from visiting import serving

from kinetograph import conformance
from kinetograph.conformance import Wishes, points

pytestmark = pytest.mark.slow


def test_our_server_keeps_every_point_of_the_contract(stranger, flow, tmp_path):
    command = [sys.executable, "-m", "kinetograph", "keys", "add", "tester", "--folder", str(tmp_path), "--json"]
    key = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["key"]
    allowed = [word for name in ("render", "dissolving", flow) for word in ("--allow", name)]
    wishes = Wishes(
        key=key,
        fields={"model": flow, "steps": "2"},  # of tens: nothing here asks how it looks
        slow={"model": "dissolving", "steps": "100", "seconds_each": "0.05"},
        failing={"model": "dissolving", "prompt": "a white circle on a white background"},
        patience=120.0,
    )
    with serving(tmp_path, stranger, "--port", 0, "--rate", "100000/minute", *allowed) as url:
        report = conformance.examine(url, wishes)
    assert [(one.name, one.state, one.came) for one in report.findings if one.state != "passed"] == []
    page = (Path(__file__).parents[2] / "docs" / "conformance.md").read_text(encoding="utf-8")
    ours = dict(re.findall(r"^\| `([a-z.-]+)` \| .+? \| (\S+) \| \S+ \| \S+ \|$", page, re.M))
    assert ours == dict.fromkeys((point.name for point in points.POINTS), "yes")
