"""The life of a service: configured, started, healthy or not, drained, stopped.

A service is whatever works for as long as the server runs: what answers DIMSE requests, what tells peers
later, what tends the index in the background. A new one provides

- a constructor that takes what it works with and its settings, and does nothing yet: **configure**;
- `start`: begin threads, open what is its own. What can't be raises, and the server does not start;
- `health`: whether it can do its work now, and in words why not. Called from any thread, at any time, cheap;
- `drain`: take nothing new, finish what is in hand by the deadline. What is not finished then must be found
  again after the next start, as after a crash;
- `stop`: end threads, give back what `start` took. Also after a drain that did not finish, and also twice.

`Services` takes all of them through it together. Those of the DIMSE edge say besides what they negotiate
(`dimse.service`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from pacs_core.logs import get_logger

log = get_logger("lifecycle")


_WATCH_SECONDS = 1.0


class Health(NamedTuple):
    """Whether a service can do its work, and what there is to say about it."""

    well: bool = True
    words: str = ""


WELL = Health()


class Service:
    """What is started, drained and stopped with the server. As it stands here: always well, never busy."""

    name: str
    """For logs and for whoever asks for its health."""

    def start(self) -> None:
        """Begin to work. Raises a PacsError if that can't be."""

    def health(self) -> Health:
        """Whether it can do its work now."""
        return WELL

    def drain(self, deadline: float) -> None:
        """Take nothing new; return when what is in hand is done, or at `deadline` of `time.monotonic()`."""

    def stop(self) -> None:
        """End, and give everything back."""


class Services:
    """Services that live together: started in the order given, stopped in the other.

    >>> with Services([Service()]) as services:         # doctest: +SKIP
    ...     services.drain(time.monotonic() + 30)
    """

    def __init__(self, services: Sequence[Service]) -> None:
        self._services = tuple(services)
        self._started: list[Service] = []

    def __iter__(self) -> Iterator[Service]:
        return iter(self._services)

    def __enter__(self) -> Services:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start all; if one can't, those before it are stopped again, and what it raised is raised."""
        for service in self._services:
            try:
                service.start()
            except BaseException:
                self.stop()
                raise
            self._started.append(service)

    def health(self) -> dict[str, Health]:
        """Of each by its name; one that fails to say is not well."""
        found = {}
        for service in self._started:
            try:
                found[service.name] = service.health()
            except Exception as exc:  # noqa: BLE001 - it is a finding about the service
                found[service.name] = Health(False, f"{type(exc).__name__}: {exc}")
        return found

    def drain(self, deadline: float) -> None:
        """Drain all at the same time."""
        threads = [
            threading.Thread(
                target=self._quietly, args=(service, "drain", deadline), name=f"drain {service.name}"
            )
            for service in self._started
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def stop(self) -> None:
        """Stop those that were started, whatever one of them raises."""
        while self._started:
            self._quietly(self._started.pop(), "stop")

    def _quietly(self, service: Service, step: str, *arguments: float) -> None:
        try:
            getattr(service, step)(*arguments)
        except Exception as exc:  # noqa: BLE001 - the others are to end in order
            log.error(f"a service failed to {step}", service=service.name, why=f"{type(exc).__name__}: {exc}")


class Watch(Service):
    """Asks services for their health, logs what changes, and tells it: at its start, and when it changes."""

    name = "watch"

    def __init__(self, services: Services, tell: Callable[[dict[str, Health]], None]) -> None:
        self._services = services
        self._tell = tell
        self._told: dict[str, Health] = {}
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Look for the first time, then once a second."""
        self._look()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(_WATCH_SECONDS):
            self._look()

    def _look(self) -> None:
        found = self._services.health()
        if found == self._told:
            return
        for name, health in found.items():
            if health.well != self._told.get(name, WELL).well:
                if health.well:
                    log.info("service is well again", service=name)
                else:
                    log.error("service is not well", service=name, why=health.words)
        self._told = found
        self._tell(found)
