"""The index looked at as a whole: a canonical dump, and a check that everything in it fits together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pacs_core._ext import browse, keys
from pacs_core.dicom.attributes import Level
from pacs_core.index import schema
from pacs_core.index.base import Located

if TYPE_CHECKING:
    from pacs_core.index.writer import Index

Dump = dict[str, Any]

_MODALITY = 0x0008_0060
_STUDY_DATE = 0x0008_0020


def _merged(values: dict[int, tuple[str, int]]) -> Dump:
    return {f"{tag:08X}": list(value) for tag, value in sorted(values.items())}


def _claims(record: browse.Record) -> dict[str, Dump]:
    return {
        f"{claim['patient_id']}\\{claim['issuer']}": {
            "instances": claim["instances"],
            "first": claim["first"],
            "values": _merged(claim["values"]),
        }
        for claim in sorted(record["claims"], key=lambda c: (c["patient_id"], c["issuer"]))
    }


def dump(index: Index, *, locators: bool = True) -> Dump:
    """All that is held: patients, their studies, series and instances, each by what identifies it."""
    opened = index._opened
    env, layout = opened.env, opened.schema
    patients: Dump = {}
    for chunk in index._walk(schema.PATIENT, None):
        for patient_id, record in zip(chunk, index._records(Level.PATIENT, chunk), strict=True):
            if record is None:
                continue
            studies = {}
            for study_id, study in _below(index, Level.STUDY, patient_id):
                studies[study["uid"] or study["alias"].hex()] = {
                    "values": _merged(study["values"]),
                    "instances": study["instances"],
                    "bytes": study["bytes"],
                    "modalities": dict(sorted(study["modalities"].items())),
                    "classes": dict(sorted(study["classes"].items())),
                    "claims": _claims(study),
                    "series": {
                        series["uid"]: {
                            "values": _merged(series["values"]),
                            "bytes": series["bytes"],
                            "instances": dict(sorted(_instances(env, layout, index, series_id, locators))),
                        }
                        for series_id, series in _below(index, Level.SERIES, study_id)
                    },
                }
            name = f"{record['uid']}\\{record['issuer']}"
            if record["unnamed"]:
                name = "of study " + " ".join(studies)
            patients[name] = {
                "values": _merged(record["values"]),
                "counters": [record["studies"], record["series"], record["instances"]],
                "studies": dict(sorted(studies.items())),
            }
    return {"patients": dict(sorted(patients.items())), "bytes": opened.counters()[1]}


def _below(index: Index, level: Level, parent: int) -> Iterator[tuple[int, browse.Record]]:
    for chunk in index._children(parent):
        for one, record in zip(chunk, index._records(level, chunk), strict=True):
            if record is not None:
                yield one, record


def _instances(
    env: Any, layout: Any, index: Index, series_id: int, locators: bool
) -> Iterator[tuple[str, Dump]]:
    above = _ABOVE | {a.tag for a in index._opened.state.attributes if a.level is not Level.IMAGE}
    for chunk in index._children(series_id):
        rows = browse.matches(env, layout, Level.IMAGE, chunk)
        for place, row in zip(browse.places(env, layout, chunk), rows, strict=True):
            if place is None or row is None:
                continue
            found = Located._make(place)
            own = {f"{tag:08X}": row[tag] for tag in sorted(row) if tag not in above}
            kept = {"locator": found.locator.hex()} if locators else {}
            yield (
                found.sop_instance_uid,
                {
                    "stamp": found.stamp,
                    "checksum": found.checksum,
                    "source": found.source_ae,
                    "values": own,
                    **kept,
                },
            )


_ABOVE = frozenset(
    {0x0008_0061, 0x0008_0062}
    | {0x0020_1200, 0x0020_1202, 0x0020_1204, 0x0020_1206, 0x0020_1208, 0x0020_1209}
)


class _Tally:
    """How many entries the tables should have, counted while checking."""

    def __init__(self) -> None:
        self.uids = 0
        self.children = 0
        self.keys = 0
        self.rows = [0, 0, 0, 0]
        self.bytes = 0


def check(index: Index) -> Iterator[str]:
    """What does not fit. One patient at a time is looked at under the commit lock; the totals of the tables
    are compared only if nothing was committed meanwhile."""
    before = index._opened.counters()
    entries = index._opened.env.entries()
    sums = _Tally()
    for chunk in index._walk(schema.PATIENT, None):
        for patient_id in chunk:
            with index.exclusive():
                problems = list(_check_patient(index, patient_id, sums))
            yield from problems
    if index._opened.counters() != before:
        return
    for name, counted, there in (
        ("uid", sums.uids, entries[schema.UID]),
        ("child", sums.children, entries[schema.CHILD]),
        ("key", sums.keys, entries[schema.KEY]),
        ("study", sums.rows[Level.STUDY], entries[schema.STUDY]),
        ("series", sums.rows[Level.SERIES], entries[schema.SERIES]),
        ("instance", sums.rows[Level.IMAGE], entries[schema.INSTANCE]),
        ("bytes", sums.bytes, before[1]),
    ):
        if counted != there:
            yield f"table {name}: {there} where the records account for {counted}"


def _check_patient(index: Index, patient_id: int, sums: _Tally) -> Iterator[str]:
    (patient,) = index._records(Level.PATIENT, [patient_id])
    if patient is None:
        return
    where = f"patient {patient_id}"
    counted = [0, 0, 0]
    said: dict[int, tuple[int, str]] = {}
    for study_id, study in _below(index, Level.STUDY, patient_id):
        if study["parent"] != patient_id:
            yield f"study {study['uid']}: listed under another patient than its own"
        counted[0] += 1
        counted[1] += study["series"]
        counted[2] += study["instances"]
        yield from _check_study(index, study_id, study, patient, sums)
        for claim in _heard(study):
            for tag, (value, stamp) in claim["values"].items():
                said[tag] = min(said.get(tag, (stamp, value)), (stamp, value))
    if counted != [patient["studies"], patient["series"], patient["instances"]]:
        yield f"{where}: counters do not agree with its {counted} studies, series and instances"
    if patient["values"] != {tag: (value, stamp) for tag, (stamp, value) in said.items()}:
        yield f"{where}: attributes do not agree with its studies"
    sums.rows[Level.PATIENT] += 1
    if patient["unnamed"] != (patient["uid"] == ""):
        yield f"{where}: named and unnamed at once"
    elif not patient["unnamed"]:
        sums.uids += 1
        first, second = patient["uid"].encode(), patient["issuer"].encode()
        text = b"p" + (len(first) & 0xFFFF).to_bytes(2, "big") + first + second
        if browse.lookup(index._opened.env, index._opened.schema, 0, text) != patient_id:
            yield f"{where}: not found by its identity"
    expected = _keys_of(index, Level.PATIENT, patient)
    expected |= set(keys.attribute_keys(keys.PATIENT_ID, keys.TEXT, patient["uid"].encode()))
    yield from _check_keys(index, where, patient_id, expected, sums)


def _heard(study: browse.Record) -> list[browse.Claim]:
    """The claims that reach the study's patient."""
    named = [claim for claim in study["claims"] if claim["patient_id"]]
    best = min(
        named, key=lambda c: (c["first"], c["patient_id"].encode(), c["issuer"].encode()), default=None
    )
    return [claim for claim in study["claims"] if claim is best or not claim["patient_id"]]


def _check_study(
    index: Index, study_id: int, study: browse.Record, patient: browse.Record, sums: _Tally
) -> Iterator[str]:
    where = f"study {study['uid'] or study_id}"
    env, layout = index._opened.env, index._opened.schema
    modalities: Counter[str] = Counter()
    classes: Counter[str] = Counter()
    claims: Counter[int] = Counter()
    firsts: dict[int, int] = {}
    stamps: set[int] = set()
    series_count = instance_count = size = 0
    for series_id, series in _below(index, Level.SERIES, study_id):
        series_count += 1
        own: list[Located] = []
        for chunk in index._children(series_id):
            for place in browse.places(env, layout, chunk):
                if place is None:
                    yield f"series {series['uid']}: lists an instance that has no record"
                    continue
                own.append(Located._make(place))
        for found in own:
            if found.series_id != series_id:
                yield f"instance {found.sop_instance_uid}: listed under another series than its own"
            if browse.lookup(env, layout, 3, found.sop_instance_uid.encode()) != found.id:
                yield f"instance {found.sop_instance_uid}: not found by its UID"
            classes[found.sop_class_uid] += 1
            claims[found.claim] += 1
            firsts[found.claim] = min(firsts.get(found.claim, found.stamp), found.stamp)
        here = sum(int.from_bytes(found.locator[16:], "little") for found in own)
        sums.uids += 1 + len(own)
        sums.children += 1 + len(own)
        sums.rows[Level.SERIES] += 1
        sums.rows[Level.IMAGE] += len(own)
        instance_count += len(own)
        size += here
        stamps |= {found.stamp for found in own}
        if (series["instances"], series["bytes"]) != (len(own), here) or not own:
            yield f"series {series['uid']}: counters do not agree with its instances"
        if series["parent"] != study_id:
            yield f"series {series['uid']}: listed under another study than its own"
        if browse.lookup(env, layout, 2, series["uid"].encode(), study_id) != series_id:
            yield f"series {series['uid']}: not found by its UID"
        if not {stamp for _, stamp in series["values"].values()} <= {found.stamp for found in own}:
            yield f"series {series['uid']}: a value of an instance that is not in it"
        if _MODALITY in series["values"]:
            modalities[series["values"][_MODALITY][0]] += 1
    sums.uids += 1
    sums.children += 1
    sums.rows[Level.STUDY] += 1
    sums.bytes += size
    if (study["series"], study["instances"], study["bytes"]) != (series_count, instance_count, size):
        yield f"{where}: counters do not agree with its series"
    if study["modalities"] != dict(modalities):
        yield f"{where}: modalities do not agree with its series"
    if study["classes"] != {name: count for name, count in classes.items() if name}:
        yield f"{where}: SOP classes do not agree with its instances"
    if {c["number"]: (c["instances"], c["first"]) for c in study["claims"]} != {
        one: (count, firsts[one]) for one, count in claims.items()
    }:
        yield f"{where}: claims do not agree with its instances"
    if not {stamp for _, stamp in study["values"].values()} <= stamps:
        yield f"{where}: a value of an instance that is not in it"
    owners = [claim for claim in _heard(study) if claim["patient_id"]]
    if [(c["patient_id"], c["issuer"]) for c in owners] != (
        [] if patient["unnamed"] else [(patient["uid"], patient["issuer"])]
    ):
        yield f"{where}: under another patient than it says"
    kind, text = (1, study["uid"].encode()) if study["uid"] else (4, study["alias"])
    if browse.lookup(env, layout, kind, text) != study_id:
        yield f"{where}: not found by its UID"
    expected = _keys_of(index, Level.STUDY, study)
    date = study["values"].get(_STUDY_DATE, ("", 0))[0].encode()
    for name in modalities:
        expected.update(keys.modality_date_keys(name.encode(), date))
    yield from _check_keys(index, where, study_id, expected, sums)


def _keys_of(index: Index, level: Level, record: browse.Record) -> set[bytes]:
    """The keys that a record's values make."""
    packed = index._opened.env.read(schema.META, [b"codes"])[0] or b""
    return {
        key
        for tag, (at, code, kind) in schema.unpack_codes(packed).items()
        if at is level and kind
        for key in keys.attribute_keys(code, kind, record["values"].get(tag, ("", 0))[0].encode())
    }


def _check_keys(index: Index, where: str, one: int, expected: set[bytes], sums: _Tally) -> Iterator[str]:
    sums.keys += len(expected)
    for key in sorted(expected):
        if browse.ids_of(index._opened.env, schema.KEY, key, one - 1, 1) != [one]:
            yield f"{where}: no key {key.hex()}"
