"""The README's Python block runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import environment

pytestmark = pytest.mark.integration
README = Path(__file__).parents[2] / "README.md"


def test_the_readmes_python_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1, f"{README}: expected one block of Python, found {len(blocks)}"
    script = tmp_path / "block.py"
    script.write_text(blocks[0], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, cwd=tmp_path, env=environment(), timeout=400
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "runs" / "first" / "report.html").exists()
    assert re.search(r"^0 +machines/fan/test/anomaly_id_00_00000000\.wav +\d\.\d+ +[01]$", done.stdout, re.MULTILINE)
