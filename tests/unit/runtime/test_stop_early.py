import os
import signal
import subprocess
import sys

import pytest

from dpe_api.names import Exit

SLOW = "import time; print('importing', flush=True); time.sleep(60)"


@pytest.mark.parametrize("module", ["dpe_jobs", "dpe_operator"])
def test_a_process_told_to_stop_while_it_still_imports_stops(tmp_path, module):
    (tmp_path / "dpe_api").mkdir()
    (tmp_path / "dpe_api" / "__init__.py").write_text(SLOW)
    path = os.pathsep.join([str(tmp_path), *sys.path])
    command = [sys.executable, "-m", module, "serve"]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == Exit.STOPPED
    finally:
        process.kill()
        process.communicate()
