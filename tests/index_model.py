"""The rules of the index written down a second time, slow and obvious: what a set of instances amounts to."""

from __future__ import annotations

import json
import struct
from collections import Counter
from dataclasses import dataclass
from typing import Any

from sequence_items import pack as packed_items

from pacs_core.dicom.attributes import BY_KEYWORD, Level
from pacs_core.index import Entry
from pacs_core.index.schema import UNIQUE

SYNTAX = "1.2.840.10008.1.2.1"
CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"


def pack(values: dict[str, str]) -> bytes:
    """A fields blob of values by keyword; items of a sequence are written as JSON."""
    items = sorted((BY_KEYWORD[keyword].tag, _encoded(keyword, value)) for keyword, value in values.items())
    return b"\x01" + b"".join(struct.pack("<II", tag, len(value)) + value for tag, value in items)


def _encoded(keyword: str, value: str) -> bytes:
    if BY_KEYWORD[keyword].vr != "SQ":
        return value.encode()
    return packed_items({int(tag): text for tag, text in item.items()} for item in json.loads(value or "[]"))


@dataclass(frozen=True)
class Instance:
    """An instance as the tests make them: values by keyword, and what comes with them."""

    values: tuple[tuple[str, str], ...]
    stamp: int
    size: int = 1000

    def __getitem__(self, keyword: str) -> str:
        return dict(self.values).get(keyword, "")

    @property
    def uid(self) -> str:
        return self["SOPInstanceUID"]

    @property
    def identity(self) -> tuple[str, str]:
        return (self["PatientID"], self["IssuerOfPatientID"]) if self["PatientID"] else ("", "")

    @property
    def study(self) -> str:
        """What the study is keyed by."""
        if self["StudyInstanceUID"]:
            return self["StudyInstanceUID"]
        if self["PatientID"]:
            first, second = (part.encode() for part in self.identity)
            return (b"p" + len(first).to_bytes(2, "big") + first + second).hex()
        kind, uid = (b"s", self["SeriesInstanceUID"]) if self["SeriesInstanceUID"] else (b"i", self.uid)
        return (kind + len(uid).to_bytes(2, "big") + uid.encode()).hex()

    @property
    def entry(self) -> Entry:
        locator = struct.pack("<QQQ", 1 << 63 | self.stamp, self.stamp, self.size)
        return Entry(pack(dict(self.values)), locator, self.stamp, self.stamp & 0xFFFF, SYNTAX, "MODALITY")


def instance(number: int, stamp: int | None = None, size: int = 1000, **values: str) -> Instance:
    """An ordinary CT, but for `values` (an empty one is left out)."""
    base = {
        "SOPInstanceUID": f"1.2.3.{number}",
        "SOPClassUID": CT_CLASS,
        "StudyInstanceUID": "1.2.1",
        "SeriesInstanceUID": "1.2.2",
        "PatientID": "P1",
        "PatientName": "Doe^John",
        "Modality": "CT",
        "InstanceNumber": str(number),
        "StudyDate": "20240102",
    }
    base.update(values)
    present = tuple((keyword, value) for keyword, value in base.items() if value)
    return Instance(present, number if stamp is None else stamp, size)


def _merge(instances: list[Instance], level: Level) -> dict[str, list[Any]]:
    found: dict[str, tuple[int, str]] = {}
    for one in instances:
        for keyword, value in one.values:
            attribute = BY_KEYWORD[keyword]
            if attribute.level is level and attribute.tag not in UNIQUE:
                tag = f"{attribute.tag:08X}"
                found[tag] = min(found.get(tag, (one.stamp, value)), (one.stamp, value))
    return {tag: [value, stamp] for tag, (stamp, value) in sorted(found.items())}


def _owner(instances: list[Instance]) -> tuple[str, str]:
    named = [(one.stamp, one.identity) for one in instances if one.identity[0]]
    return min(named)[1] if named else ("", "")


def _study(instances: list[Instance]) -> dict[str, Any]:
    by_series: dict[str, list[Instance]] = {}
    by_claim: dict[tuple[str, str], list[Instance]] = {}
    for one in instances:
        by_series.setdefault(one["SeriesInstanceUID"], []).append(one)
        by_claim.setdefault(one.identity, []).append(one)
    series = {
        uid: {
            "values": _merge(own, Level.SERIES),
            "bytes": sum(one.size for one in own),
            "instances": {
                one.uid: {
                    "stamp": one.stamp,
                    "checksum": one.stamp & 0xFFFF,
                    "source": "MODALITY",
                    "locator": one.entry.locator.hex(),
                    "values": {
                        f"{tag:08X}": value
                        for tag, value in [
                            (0x0002_0010, SYNTAX),
                            *sorted(
                                (BY_KEYWORD[keyword].tag, value)
                                for keyword, value in one.values
                                if BY_KEYWORD[keyword].level is Level.IMAGE
                            ),
                        ]
                    },
                }
                for one in sorted(own, key=lambda one: one.uid)
            },
        }
        for uid, own in by_series.items()
    }
    modalities = Counter(s["values"]["00080060"][0] for s in series.values() if "00080060" in s["values"])
    return {
        "values": _merge(instances, Level.STUDY),
        "instances": len(instances),
        "bytes": sum(one.size for one in instances),
        "modalities": dict(modalities),
        "classes": dict(Counter(one["SOPClassUID"] for one in instances if one["SOPClassUID"])),
        "claims": {
            "\\".join(identity): {
                "instances": len(own),
                "first": min(one.stamp for one in own),
                "values": _merge(own, Level.PATIENT),
            }
            for identity, own in by_claim.items()
        },
        "series": series,
    }


def amount(instances: list[Instance]) -> dict[str, Any]:
    """What `Index.dump` gives for an index that holds exactly these."""
    by_study: dict[str, list[Instance]] = {}
    for one in instances:
        by_study.setdefault(one.study, []).append(one)
    owned: dict[str, list[str]] = {}
    for key, own in by_study.items():
        identity = _owner(own)
        owned.setdefault("\\".join(identity) if identity[0] else f"of study {key}", []).append(key)
    patients = {}
    for name, keys in owned.items():
        heard = [
            one for key in keys for one in by_study[key] if one.identity in (_owner(by_study[key]), ("", ""))
        ]
        studies = {key: _study(by_study[key]) for key in keys}
        patients[name] = {
            "values": _merge(heard, Level.PATIENT),
            "counters": [
                len(studies),
                sum(len(study["series"]) for study in studies.values()),
                sum(study["instances"] for study in studies.values()),
            ],
            "studies": studies,
        }
    return {"patients": patients, "bytes": sum(one.size for one in instances)}
