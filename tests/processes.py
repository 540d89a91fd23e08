"""Test files that run themselves as scripts: devices are made when JAX starts."""

import os
import subprocess
import sys

from compiler_flags import on_devices


def run_on_devices(file, *args, count=2, **environment):
    """`python file args` in a new process with so many CPU devices, and what it printed."""
    env = {**os.environ, "XLA_FLAGS": on_devices(count), **environment}
    env["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    run = [sys.executable, file, *args]
    return subprocess.run(run, env=env, capture_output=True, text=True, check=False)
