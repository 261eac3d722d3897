"""A plan carried out by several processes; which of them makes what has no influence on what is made."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import partial
from multiprocessing.synchronize import Event
from multiprocessing.util import Finalize

from corpus.instances import Options
from corpus.plan import KINDS, Plan, Series
from corpus.sinks import Made, Sink

_INSTANCES, _BYTES = 1024, 1 << 26
"""A process is given series until they have one of these."""

_take: list[Callable[[list[Series]], Made]] = []
"""In a process of the pool: what it does with a batch."""


def make(
    plan: Plan, options: Options, open_sink: Callable[[], Sink], jobs: int, tell: Callable[[Made], None]
) -> None:
    """Carry out a plan, and `tell` what was made now and then.

    An exception, that of an interrupt too, is raised when all processes have stopped in order.
    """
    open_sink().close()  # what is wrong with it is raised here, once
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    running: set[Future[Made]] = set()

    def settle(most: int) -> None:
        while len(running) > most:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                running.remove(future)
                tell(future.result())

    with ProcessPoolExecutor(jobs, context, _start, (options, open_sink, stop)) as pool:
        try:
            for batch in _batches(plan):
                # Processes start here, and have this mask for good: interrupts are for the first one only.
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
                running.add(pool.submit(_make, batch))
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
                settle(2 * jobs)
            settle(0)
        except KeyboardInterrupt:
            stop.set()
            settle(0)
            raise
        finally:
            stop.set()


def _start(options: Options, open_sink: Callable[[], Sink], stop: Event) -> None:
    sink = open_sink()
    Finalize(None, sink.close, exitpriority=0)
    _take.append(partial(sink.take, options, stop.is_set))


def _make(batch: list[Series]) -> Made:
    return _take[0](batch)


def _batches(plan: Plan) -> Iterator[list[Series]]:
    batch: list[Series] = []
    count = size = 0
    for series in plan.series():
        batch.append(series)
        count += series.count
        size += series.count * KINDS[series.kind].bytes
        if count >= _INSTANCES or size >= _BYTES:
            yield batch
            batch, count, size = [], 0, 0
    if batch:
        yield batch
