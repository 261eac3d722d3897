"""What kept bytes say of themselves: the index entry of an instance, and the heirs of one that goes.

Attributes of patient, study and series come from the instance received first that has them (the index
remembers which). When that one is removed the same rule is applied to those that stay: their headers are
read again, in the order of reception, until every attribute has a supplier or none is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pacs_core.dicom.fields import values
from pacs_core.dicom.part10 import split
from pacs_core.errors import CorruptError, NotFoundError, UnparsableError
from pacs_core.index import Entry, Index, Reading
from pacs_core.logs import get_logger
from pacs_core.store import Locator, Store, crc32c

log = get_logger("archive.heirs")


class KeptInstance(NamedTuple):
    """An instance as its kept bytes tell it."""

    uid: str
    entry: Entry


def heirs_of(index: Index, store: Store, uids: Sequence[str]) -> list[Entry]:
    """Entries whose merging gives back the attributes that the instances `uids` supply.

    Call it with the index held exclusively: an instance that comes in between would be overlooked.
    """
    if not uids:
        return []
    heirs: list[Entry] = []
    succession = index.succession(uids)
    for located in succession.candidates():
        try:
            heir = read_instance(store, Locator.unpack(located.locator), index.reading).entry
        except (CorruptError, NotFoundError, UnparsableError) as exc:
            log.error("an instance can't pass its attributes on", why=str(exc))
            continue
        heirs.append(heir)
        succession.supply(located, values(heir.fields))
    return heirs


def read_instance(store: Store, locator: Locator, reading: Reading, *, check: bool = False) -> KeptInstance:
    """The index entry of an instance, from its bytes; with `check` they are read to the end.

    Raises
    ------
    CorruptError
        The bytes are not what was kept.
    NotFoundError
        They are gone.
    UnparsableError
        They can't be read as far as the file meta.
    """
    meta, body = split(store.read(locator))
    reception = meta.reception
    if reception is None:
        raise CorruptError(f"{locator} lacks the trace of its reception", uid=meta.sop_instance_uid)
    if reception.length != len(body) or (check and crc32c(body) != reception.checksum):
        raise CorruptError(f"{locator} is not what was received", uid=meta.sop_instance_uid)
    entry = Entry(
        fields=reading.scanner.scan(body, meta.transfer_syntax_uid).fields,
        locator=locator.pack(),
        stamp=reception.stamp,
        checksum=reception.checksum,
        transfer_syntax_uid=meta.transfer_syntax_uid,
        source_ae=reception.source_ae,
        known=reading.known,
    )
    return KeptInstance(meta.sop_instance_uid, entry)
