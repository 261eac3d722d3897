"""Finding: which instances are held, what is known of them, where they are kept.

Rules of identity:

- An instance is its SOP Instance UID, anywhere. The first one committed stays, unless replacing is asked for.
- A series is its Series Instance UID within its study; a study is its Study Instance UID, anywhere. Empty
  UIDs are accepted: a study without one is keyed by its patient, or by its series (or instance) when the
  patient is unknown too.
- A patient is (Patient ID, Issuer of Patient ID). An empty Patient ID never merges people: such a patient is
  keyed by its study.
- A study belongs to one patient: the identity that came first with a Patient ID. Instances that came with
  another one stay in the study, their `Result` says `Conflict.PATIENT`, and nothing that they say of their
  patient reaches that of the study. Instances without Patient ID are taken to be of the study's patient.

Rules of merging: the value of an attribute of a patient, study or series is the one that is not empty and was
received first (smallest stamp). Each value remembers the stamp of its supplier. So what the index holds is a
function of the instances that are held, not of the order of the commits, and rebuilding it gives the same.
When a supplier goes, its values go with it; `Index.succession` names the instances that may have others, and
the caller gives their headers to the same transaction as heirs.

Counters, modalities, SOP classes and keys are right in the same transaction; parents without children vanish.

Attributes have codes, which the `meta` table gives out and never takes back: what is asked for by one process
is recorded by all, as nothing is committed by who does not know a code. One that came when instances were
held is pending, and not told, until those have been merged again with it (`Index.fill`).
"""

from pacs_core.index.base import (
    Addition,
    Conflict,
    Entry,
    IndexBackend,
    Located,
    Mark,
    Outcome,
    Reading,
    Result,
    Stats,
    Succession,
)
from pacs_core.index.search import Part, Search
from pacs_core.index.writer import Index

__all__ = [
    "Addition",
    "Conflict",
    "Entry",
    "Index",
    "IndexBackend",
    "Located",
    "Mark",
    "Outcome",
    "Part",
    "Reading",
    "Result",
    "Search",
    "Stats",
    "Succession",
]
