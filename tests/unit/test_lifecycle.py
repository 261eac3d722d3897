"""The life of services: together, in order, and whatever one of them does."""

import queue
import time

import pytest

from pacs_core import lifecycle
from pacs_core.lifecycle import WELL, Health, Service, Services, Watch


class Noted(Service):
    """Notes what is asked of it, and fails at one step."""

    def __init__(self, name: str, notes: list[str], fails: str = "") -> None:
        self.name = name
        self._notes = notes
        self._fails = fails

    def _note(self, step: str) -> None:
        self._notes.append(f"{step} {self.name}")
        if step == self._fails:
            raise ValueError(step)

    def start(self) -> None:
        self._note("start")

    def health(self) -> Health:
        self._note("health")
        return WELL

    def drain(self, deadline: float) -> None:
        self._note("drain")
        assert deadline > time.monotonic()

    def stop(self) -> None:
        self._note("stop")


def test_they_start_in_order_and_stop_in_the_other() -> None:
    notes: list[str] = []
    with Services([Noted("a", notes), Noted("b", notes)]) as services:
        assert services.health() == {"a": WELL, "b": WELL}
        services.drain(time.monotonic() + 10)
        services.stop()
    assert notes[:4] == ["start a", "start b", "health a", "health b"]
    assert sorted(notes[4:6]) == ["drain a", "drain b"]
    assert notes[6:] == ["stop b", "stop a"]


def test_one_that_does_not_start_stops_those_before_it() -> None:
    notes: list[str] = []
    services = [Noted("a", notes), Noted("b", notes, "start"), Noted("c", notes)]
    with pytest.raises(ValueError, match="start"), Services(services):
        pytest.fail("they did not start")
    assert notes == ["start a", "start b", "stop a"]


@pytest.mark.parametrize("step", ["drain", "stop"])
def test_one_that_fails_to_end_does_not_keep_the_others_from_it(step: str) -> None:
    notes: list[str] = []
    with Services([Noted("a", notes), Noted("b", notes, step)]) as services:
        services.drain(time.monotonic() + 10)
    assert sorted(notes) == ["drain a", "drain b", "start a", "start b", "stop a", "stop b"]


def test_one_that_can_not_say_how_it_is_is_not_well() -> None:
    with Services([Noted("a", [], "health")]) as services:
        assert services.health() == {"a": Health(False, "ValueError: health")}


def test_a_watch_tells_at_once_and_when_something_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Moody(Service):
        name = "moody"
        mood = WELL

        def health(self) -> Health:
            return self.mood

    monkeypatch.setattr(lifecycle, "_WATCH_SECONDS", 0.01)
    told: queue.Queue[dict[str, Health]] = queue.Queue()
    moody = Moody()
    with Services([moody]) as services, Services([Watch(services, told.put)]):
        assert told.get(timeout=5) == {"moody": WELL}
        for mood in (Health(False, "no room"), WELL):
            moody.mood = mood
            assert told.get(timeout=5) == {"moody": mood}
    assert told.empty()
