"""A run that is killed wherever it touches the disk goes on, and ends as if it had not been."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_a_run_killed_at_any_write_fsync_or_rename_goes_on_to_the_same_files(tmp_path):
    script = Path(__file__).with_name("killed_runs.py")
    done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    kills = [json.loads(line) for line in done.stdout.splitlines()]
    assert [kill["point"] for kill in kills if not kill["same"]] == []
    found = Counter(kill["how"] for kill in kills)
    assert found["resumed"] > 50  # three saves and the files beside them
    assert 0 < found["started again"] < 12  # before there was a configuration to go on from
