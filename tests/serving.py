"""The server as its own process, as a user starts it, for tests that talk to it, kill it, start it again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

STARTUP_SECONDS = 30


class Serving:
    """A running `pacs-core serve` in a process group of its own."""

    def __init__(self, archive: Path, *args: str, environment: Mapping[str, str] | None = None) -> None:
        self.archive = archive
        self.lines: list[dict[str, object]] = []
        self._listening = threading.Event()
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "pacs_core", "serve", "--archive", str(archive), "--port", "0"),
                *("--set", "log.format=json", *args),
            ],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            env={k: v for k, v in os.environ.items() if not k.startswith("PACS_CORE_")}
            | dict(environment or {}),
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._listening.wait(STARTUP_SECONDS) or not self.ports:
            self.kill()
            raise AssertionError(f"the server did not listen: {self.lines}")

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                self.lines.append(json.loads(line))
            except ValueError:
                self.lines.append({"event": line.rstrip()})
            if self.lines[-1].get("event") == "listening":
                self._listening.set()
        self.process.stderr.close()
        self._listening.set()

    @property
    def ports(self) -> list[int]:
        """Ports listened on: the plain one first, then that of TLS."""
        return [
            int(str(port))
            for line in self.lines
            if line.get("event") == "listening"
            for port in (line.get("port"), line.get("tls_port"))
            if port
        ]

    @property
    def port(self) -> int:
        return self.ports[0]

    @property
    def server_address(self) -> tuple[str, int]:
        """As `socketserver` names it."""
        return "127.0.0.1", self.port

    def said(self, event: str) -> list[dict[str, object]]:
        """Log lines of that event so far."""
        return [line for line in self.lines if line.get("event") == event]

    def kill(self) -> None:
        """SIGKILL to every process of it, at once."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(5)

    def stop(self, timeout: float = 60) -> int:
        """SIGTERM, and the exit code; time enough for it to end children that do not end by themselves."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the server did not end: {self.lines[-20:]}") from None
        self._reader.join(5)
        return code


@contextmanager
def serving(archive: Path, *args: str, environment: Mapping[str, str] | None = None) -> Iterator[Serving]:
    """A server for the length of the block; killed at its end if it still runs."""
    server = Serving(archive, *args, environment=environment)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.kill()


def pacs_core(*args: str, check: int | None = 0, seconds: float = 240) -> subprocess.CompletedProcess[str]:
    """Run a command of ours to its end, within `seconds`; `check` is the exit code it must have."""
    done = subprocess.run(
        [sys.executable, "-m", "pacs_core", *args],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert check is None or done.returncode == check, (done.returncode, done.stdout, done.stderr)
    return done


def stats(archive: Path) -> dict[str, int]:
    """`pacs-core stats --json`."""
    return json.loads(pacs_core("stats", "--archive", str(archive), "--json").stdout)


def until(condition, seconds: float = 10) -> bool:  # type: ignore[no-untyped-def]
    """Whether `condition()` becomes true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())
