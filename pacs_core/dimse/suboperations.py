"""The C-STORE sub-operations of C-GET and C-MOVE: what became of them, and those of C-GET themselves.

PS3.4 C.4.2, C.4.3; PS3.7 9.1.3, 9.1.4.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from pacs_core._ext.command import encode_store_rq
from pacs_core.archive import Held, Outgoing
from pacs_core.dimse.status import SOME_FAILED, SUCCESS, UNABLE_TO_PERFORM
from pacs_core.errors import CorruptError, InvalidValueError, PacsError
from pacs_core.logs import get_logger

if TYPE_CHECKING:
    from pacs_core.dimse.association import Association

log = get_logger("dimse.retrieve")

Prepare = Callable[[Held, Container[str]], Outgoing]
"""The data set of an instance, in one of the transfer syntaxes that are accepted."""

_MOST = 0xFFFF  # a counter, or a message ID, is a US
_MOST_REASONS = 8  # that the log is told of one retrieval


class Outcome(Protocol):
    """What became of one sub-operation; `status`: the response, None if there was none."""

    @property
    def sop_instance_uid(self) -> str: ...
    @property
    def status(self) -> int | None: ...
    @property
    def error(self) -> PacsError | None:
        """Why it failed; None where the status tells, and of one that did not fail."""


class Delivered(NamedTuple):
    """The outcome of a sub-operation of C-GET."""

    sop_instance_uid: str
    status: int | None = None
    error: PacsError | None = None


class Tally:
    """The counters of a retrieval (C.4.2.1.6 to .9), and the SOP Instance UIDs that failed."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.completed = 0
        self.warning = 0
        self.failed: list[str] = []
        self._why: Counter[str] = Counter()

    @property
    def remaining(self) -> int:
        """Sub-operations without an outcome."""
        return self.total - self.completed - self.warning - len(self.failed)

    def count(self, outcome: Outcome) -> None:
        """Count one by its status (PS3.4 B.2.3)."""
        status = outcome.status
        if status == SUCCESS:
            self.completed += 1
        elif status is not None and status >> 12 == 0xB:
            self.warning += 1
        else:
            self.failed.append(outcome.sop_instance_uid)
            self._why[_reason(outcome)] += 1

    def status(self) -> int:
        """That of the final response of a retrieval that was not cancelled (C.4.2.1.5, C.4.3.1.4)."""
        if not self.failed and not self.warning:
            return SUCCESS
        return SOME_FAILED if self.completed or self.warning else UNABLE_TO_PERFORM

    def elements(self, *, remaining: bool) -> dict[int, int | str | None]:
        """The counters as elements of the command set; above 65,535 they stay there."""
        counts = {
            0x1020: self.remaining if remaining else None,
            0x1021: self.completed,
            0x1022: len(self.failed),
            0x1023: self.warning,
        }
        return {element: None if n is None else min(n, _MOST) for element, n in counts.items()}

    def tell(self) -> None:
        """Say in the log what failed and why, one line for each reason."""
        for why, times in self._why.most_common(_MOST_REASONS):
            log.warning("sub-operations failed", number=times, of=self.total, why=why)


def _reason(outcome: Outcome) -> str:
    if isinstance(outcome.error, PacsError):
        return str(outcome.error.args[0])
    return "no answer" if outcome.status is None else f"the peer answered {outcome.status:04X}"


class Own:
    """Sub-operations on the association of the request, one at a time (PS3.7 D.3.3.3: window 1,1).

    Nothing is prepared while an answer is waited for: to open an instance takes 15 µs.
    """

    def __init__(self, assoc: Association, prepare: Prepare, message_id: int, priority: int) -> None:
        self._assoc = assoc
        self._prepare = prepare
        self._message_id = message_id
        self._priority = priority
        self._contexts: dict[str, dict[str, int]] = {}
        """Where the peer takes C-STORE requests of ours: SOP class, transfer syntax, context ID."""
        for ident, sop_class, result, syntax, as_scu, _ in assoc.results:
            if result == 0 and as_scu:
                self._contexts.setdefault(sop_class, {}).setdefault(syntax, ident)

    def perform(self, instances: Sequence[Held], stop: threading.Event) -> Iterator[Delivered]:
        """Send instances until `stop` is set: their outcomes."""
        for held in instances:
            if stop.is_set():
                return
            try:
                status = self._store(held)
            except PacsError as exc:
                yield Delivered(held.sop_instance_uid, error=exc)
            except ValueError as exc:  # a UID that no command set can have
                yield Delivered(held.sop_instance_uid, error=InvalidValueError(str(exc)))
            else:
                yield Delivered(held.sop_instance_uid, status)

    def _store(self, held: Held) -> int | None:
        """Send one instance; the status of the response, None if there was none."""
        self._message_id = self._message_id % _MOST + 1
        command = encode_store_rq(self._message_id, held.sop_class_uid, held.sop_instance_uid, self._priority)
        contexts = self._contexts.get(held.sop_class_uid, {})
        with self._prepare(held, contexts) as outgoing:
            self._send(contexts[outgoing.transfer_syntax_uid], command, outgoing)
            answer = self._assoc.dimse.store_answer(self._message_id)
            if answer is None:
                self._give_up()
                return None
            outgoing.check_current()
        return answer.status

    def _send(self, context_id: int, command: bytes, outgoing: Outgoing) -> None:
        """From file to socket, unless it was converted."""
        dul = self._assoc.dul
        if outgoing.data is not None:
            dul.send_message(context_id, command, outgoing.data)
            return
        try:
            dul.send_file(context_id, command, outgoing.fd, outgoing.offset, outgoing.length)
        except EOFError as exc:  # half a message is out: there is no way back
            self._assoc.abort(block=False)
            raise CorruptError("kept bytes end before their time") from exc

    def _give_up(self) -> None:
        """What the peer answers later could be taken for another answer."""
        if not self._assoc.dul.is_over():
            self._assoc.log_warning("no answer to a sub-operation in %s s", self._assoc.dimse_timeout)
            self._assoc.abort(block=False)
