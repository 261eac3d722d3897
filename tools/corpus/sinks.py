"""Where instances go: files in folders, or an archive."""

from __future__ import annotations

import errno
import shutil
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from corpus.instances import Instance, Options, instances
from corpus.plan import Series
from corpus.studies import Study
from pacs_core.archive import Archive
from pacs_core.archive.ingest import Arriving, Kept
from pacs_core.dicom.part10 import encode_meta

Stopped = Callable[[], bool]

_LARGE_AT_A_TIME = 4
"""They are stored from memory in frames of up to 10 MB; small ones may be as many as there are threads."""


@dataclass
class Made:
    """So much was written."""

    instances: int = 0
    bytes: int = 0
    held: int = 0
    """These the archive had already."""

    def add(self, other: Made) -> None:
        self.instances += other.instances
        self.bytes += other.bytes
        self.held += other.held


class Sink(Protocol):
    """Takes series; `stopped` says that no more is wanted, and what is begun is taken back."""

    def take(self, options: Options, stopped: Stopped, batch: Iterable[Series]) -> Made: ...

    def close(self) -> None: ...


class Folder:
    """Part 10 files at OUT/patient/study/series/number.dcm."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def take(self, options: Options, stopped: Stopped, batch: Iterable[Series]) -> Made:
        made = Made()
        for series in batch:
            if stopped():
                break
            made.add(self._write(options, series, stopped))
        return made

    def close(self) -> None:
        pass

    def _write(self, options: Options, series: Series, stopped: Stopped) -> Made:
        study = Study.of(options.seed, series)
        above = self._root / study.patient.patient_id / f"{study.begin:%Y%m%d}-{study.accession}"
        final = above / f"{series.number:04d}"
        # A series gets its name when it is whole: there is one rename for all of its files.
        partial = above / f"{final.name}.part"
        made = Made()
        if final.exists():
            raise FileExistsError(errno.EEXIST, "there already (another --seed makes others)", str(final))
        if partial.exists():  # a run that was killed left it
            shutil.rmtree(partial)
        try:
            partial.mkdir(parents=True)
            for instance in instances(options, series):
                with (partial / f"{instance.number:04d}.dcm").open("xb") as file:
                    file.write(_meta(instance))
                    for piece in instance.data:
                        file.write(piece)
                        if stopped():
                            return Made()
                    made.add(Made(1, file.tell()))
            partial.rename(final)
        finally:
            if partial.exists():
                shutil.rmtree(partial)
                for folder in (above, above.parent):
                    with suppress(OSError):  # others are in it
                        folder.rmdir()
        return made


class IntoArchive:
    """An archive: what it acknowledged counts. Many instances wait for a group commit together."""

    def __init__(self, path: Path, threads: int) -> None:
        self._archive = Archive.open(path)
        self._threads = threads
        self._for_large = threading.BoundedSemaphore(_LARGE_AT_A_TIME)

    def take(self, options: Options, stopped: Stopped, batch: Iterable[Series]) -> Made:
        source = (instance for series in batch for instance in instances(options, series))
        turn = threading.Lock()

        def store() -> Made:
            made = Made()
            while not stopped():
                with turn:
                    instance = next(source, None)
                if instance is None:
                    break
                made.add(self._store(instance, stopped))
            return made

        total = Made()
        with ThreadPoolExecutor(self._threads) as pool:
            for share in [pool.submit(store) for _ in range(self._threads)]:
                total.add(share.result())
        return total

    def close(self) -> None:
        self._archive.close()

    def _store(self, instance: Instance, stopped: Stopped) -> Made:
        ingest = self._archive.ingest
        arriving = Arriving(
            instance.sop_class_uid, instance.sop_instance_uid, instance.transfer_syntax_uid, "MAKECORPUS"
        )
        if not instance.large:
            data = b"".join(instance.data)
            kept = ingest.store(arriving, data).kept
            return _made(kept, len(data))
        with self._for_large:
            length = 0
            arrival = ingest.begin(arriving)
            try:
                for piece in instance.data:
                    if stopped():
                        arrival.discard()
                        return Made()
                    arrival.write(piece)
                    length += memoryview(piece).nbytes
            except BaseException:
                arrival.discard()
                raise
            return _made(arrival.finish().kept, length)


def _made(kept: Kept, length: int) -> Made:
    return Made(held=1) if kept is Kept.HELD else Made(1, length)


def _meta(instance: Instance) -> bytes:
    """Preamble and file meta information (PS3.10 7.1)."""
    return encode_meta(instance.sop_class_uid, instance.sop_instance_uid, instance.transfer_syntax_uid, None)
