"""What there will be: patients, studies and series, and how many instances in each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import click

from corpus.seeds import chance


class Size(NamedTuple):
    """How large things of a kind usually are."""

    study: int
    """Instances of a study, and the most of a series."""
    series: int
    bytes: int
    """Of an instance, about."""


KINDS = {
    "ct": Size(300, 150, 530_000),
    "mr": Size(180, 30, 140_000),
    "radiograph": Size(2, 1, 10_200_000),
    "multiframe": Size(2, 1, 18_400_000),
    "tiny": Size(100, 100, 2000),
    "huge": Size(1, 1, 1 << 32),
}
DAY = {"ct": 600, "mr": 360, "radiograph": 24, "multiframe": 6, "tiny": 240}
"""What is made when nothing is asked for: what a small hospital has on a quiet day."""


@dataclass(frozen=True, slots=True)
class Series:
    """One series to be made; all else follows from these numbers and the seed."""

    kind: str
    patient: int
    study: int
    number: int
    """In its study, from 1."""
    count: int


@dataclass(frozen=True)
class Plan:
    """How many instances of each kind, of how many studies and patients."""

    seed: int
    counts: Mapping[str, int]
    studies: Mapping[str, int]
    patients: int

    @classmethod
    def of(cls, seed: int, counts: Mapping[str, int], studies: int | None, patients: int | None) -> Plan:
        """Studies and patients are spread over what there is to be; usual numbers where none is given."""
        counts = {kind: count for kind, count in counts.items() if count}
        usual = {kind: math.ceil(count / KINDS[kind].study) for kind, count in counts.items()}
        shares = usual if studies is None else _shared(studies, usual, counts)
        total = sum(shares.values())
        if patients is None:
            patients = math.ceil(total * 0.7)
        elif patients > total:
            raise click.UsageError(f"--patients {patients}: there are only {total} studies (--studies)")
        return cls(seed, counts, shares, patients)

    @property
    def instances(self) -> int:
        return sum(self.counts.values())

    def series(self) -> Iterator[Series]:
        """All series, study after study."""
        study = 0
        for kind, count in self.counts.items():
            studies = self.studies[kind]
            begin = 0
            for number in range(1, studies + 1):
                end = self._border(kind, number, count / studies) if number < studies else count
                # Everybody has a study, some have more.
                patient = (
                    study
                    if study < self.patients
                    else chance(self.seed, "whose", study).randrange(self.patients)
                )
                yield from _cut(kind, patient, study, end - begin)
                begin, study = end, study + 1

    def _border(self, kind: str, number: int, mean: float) -> int:
        """Up to which instance the first studies of a kind go: some have more instances than others."""
        jitter = chance(self.seed, "size", kind, number).uniform(-0.3, 0.3) if mean >= 5 else 0.0
        return int(mean * (number + jitter) + 1e-6)


def _cut(kind: str, patient: int, study: int, count: int) -> Iterator[Series]:
    most = KINDS[kind].series
    for number, first in enumerate(range(0, count, most), 1):
        yield Series(kind, patient, study, number, min(most, count - first))


def _shared(studies: int, usual: Mapping[str, int], counts: Mapping[str, int]) -> dict[str, int]:
    """`studies` among the kinds, as their usual numbers are to each other; none without an instance."""
    total = sum(counts.values())
    if not len(counts) <= studies <= total:
        raise click.UsageError(
            f"--studies {studies}: from {len(counts)} (a study is of one kind) to {total} (the instances)"
        )
    whole = sum(usual.values())
    shares = {kind: min(max(1, studies * n // whole), counts[kind]) for kind, n in usual.items()}
    left = studies - sum(shares.values())
    for kind, share in shares.items():
        step = min(left, counts[kind] - share) if left > 0 else max(left, 1 - share)
        shares[kind] += step
        left -= step
    return shares
