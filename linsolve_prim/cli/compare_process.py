"""The parent's side of the worker of `compare`: start, ask, and kill what overruns."""

from __future__ import annotations

import json
import os
import pathlib
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

import numpy as np

from .compare_rows import CRASHED, STOPPED, Row
from .report import seconds

#: Importing JAX on a busy machine takes its time.
_START_SECONDS = 300.0


class WorkerFailed(Exception):
    """The worker did not start. Its message says what it printed last."""


class Worker:
    """A process that runs contestants; after a kill or a crash the next one gets a new process."""

    def __init__(self, setting: dict[str, Any]):
        self._setting = setting
        self._process: subprocess.Popen[str] | None = None
        self._messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._log = tempfile.TemporaryFile("w+", errors="replace")

    def run(self, row: Row, limit: float) -> None:
        """Fill a row, in at most `limit` seconds, and as many for the gradient.

        (Beside the start of a process, if it needs one.)
        """
        if self._process is None:
            self._start()
        job = {"code": row.code, "form": row.form}
        phase, end = "set-up", time.monotonic() + limit
        try:
            self._send(job)
        except OSError:
            return self._crashed(row, phase)
        while True:
            try:
                message = self._messages.get(timeout=max(end - time.monotonic(), 0.0))
            except queue.Empty:
                self.kill()
                return row.end(STOPPED, f"more than {seconds(limit)}, in {phase}")
            if message is None:
                return self._crashed(row, phase)
            phase = message.get("phase", phase)
            if "facts" in message:
                row.learn(message["facts"])
                end = time.monotonic() + limit
            if "done" in message:
                return None

    def kill(self) -> None:
        """End the process, whatever it is doing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    _close(stream)
            self._process = None

    def close(self) -> None:
        """End everything."""
        self.kill()
        self._log.close()

    def _start(self) -> None:
        double = np.dtype(self._setting["dtype"]) in (np.float64, np.complex128)
        sources = str(pathlib.Path(__file__).parents[2])  # where this package is, if not installed
        path = os.pathsep.join(filter(None, [sources, os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "JAX_ENABLE_X64": str(int(double)), "PYTHONPATH": path}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "linsolve_prim.cli.compare_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the parent, which ends this one
        )
        self._messages = queue.Queue()
        reader = threading.Thread(target=_read, args=(self._process, self._messages), daemon=True)
        reader.start()
        try:
            self._send(self._setting)
            ready = self._messages.get(timeout=_START_SECONDS)
        except (OSError, queue.Empty):
            ready = None
        if ready is None:
            self.kill()
            raise WorkerFailed(f"the worker process did not start. {self._last_words()}")

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()

    def _crashed(self, row: Row, phase: str) -> None:
        assert self._process is not None
        code = self._process.wait()
        how = f"exit status {code}" if code >= 0 else _signal_name(-code)
        words = self._last_words()
        row.end(CRASHED, f"{how}, in {phase}" + (f": {words}" if words else ""))
        self.kill()

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read()[-4000:].splitlines() if line.strip()]
        self._log.seek(0, os.SEEK_END)
        return lines[-1][:200] if lines else ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _close(stream: Any) -> None:
    try:
        stream.close()
    except OSError:  # what could not be flushed to a process that is gone
        pass


def _read(process: subprocess.Popen[str], messages: queue.Queue[dict[str, Any] | None]) -> None:
    assert process.stdout is not None
    try:
        for line in process.stdout:
            messages.put(json.loads(line))
    except (ValueError, OSError):  # closed meanwhile, or half a line
        pass
    messages.put(None)
