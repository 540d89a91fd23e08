"""Test files that run themselves as scripts: devices are made when JAX starts."""

import os
import subprocess
import sys

from compiler_flags import on_devices


def run_on_devices(file, count=2):
    """`python file` in a new process with so many CPU devices, and what it printed."""
    env = {**os.environ, "XLA_FLAGS": on_devices(count)}
    env["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    run = [sys.executable, file]
    return subprocess.run(run, env=env, capture_output=True, text=True, check=False)
