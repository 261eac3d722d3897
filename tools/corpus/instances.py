"""The instances of a series: what they share is encoded once, the rest is put in its place."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from corpus.images import ENCODED, Form, encoded, frame
from corpus.modalities import Blueprint, blueprint
from corpus.plan import Series
from corpus.seeds import chance
from corpus.studies import Study
from corpus.template import Template

if TYPE_CHECKING:
    from typing_extensions import Buffer

_SOP_UID, _INSTANCE_NUMBER = 0x00080018, 0x00200013
_ACQUISITION_TIME, _CONTENT_TIME = 0x00080032, 0x00080033
_POSITION, _LOCATION = 0x00200032, 0x00201041

_LARGE = 1 << 20
_OTHER_SYNTAXES = {
    "ct": (ImplicitVRLittleEndian, RLELossless, JPEG2000Lossless),
    "mr": (ImplicitVRLittleEndian, RLELossless, JPEG2000Lossless),
    "radiograph": (ImplicitVRLittleEndian, JPEG2000Lossless),
    "multiframe": (ImplicitVRLittleEndian, RLELossless),
    "tiny": (ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian),
    "huge": (ImplicitVRLittleEndian,),
}
"""Besides Explicit VR Little Endian: what is cheap, and what such modalities do write."""


@dataclass(frozen=True)
class Options:
    """What the instances depend on, besides their place in the plan."""

    seed: int
    others: float
    """The share of series in other transfer syntaxes than Explicit VR Little Endian."""
    huge_size: int
    """Bytes of pixels in a huge instance."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance, ready to be written."""

    number: int
    """In its series, from 1."""
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    large: bool
    """Better written piece by piece than held as a whole, and not with many others at a time."""
    data: Iterator[Buffer]
    """The data set in pieces, made as they are taken."""


def instances(options: Options, series: Series) -> Iterator[Instance]:
    """All of a series, in order."""
    study = Study.of(options.seed, series)
    dice = chance(options.seed, "series", study.number, series.number)
    syntax = ExplicitVRLittleEndian
    if dice.random() < options.others:
        syntax = dice.choice(_OTHER_SYNTAXES[series.kind])
    plan = blueprint(study, series, options.huge_size)
    if plan.form is not None:
        _describe_pixels(plan.dataset, plan.form)
        plan.dataset.AcquisitionDate = plan.dataset.SeriesDate
    template = Template.of(plan.dataset, syntax, _values(study, series, plan, 0))
    first, offset = dice.randrange(1 << 16), dice.random()
    for number in range(series.count):
        values = _values(study, series, plan, number)
        pixels: Iterator[Buffer] = iter(())
        if plan.form is not None:
            positions = [
                ((number * plan.frames + at + offset) / (series.count * plan.frames), first + number + at)
                for at in range(plan.frames)
            ]
            pixels = _pixels(options.seed, syntax, plan.form, positions)
        data = _data(template.filled(values), pixels)
        yield Instance(
            number + 1,
            str(plan.dataset.SOPClassUID),
            values[_SOP_UID].rstrip(b"\0").decode(),
            str(syntax),
            plan.form is not None and plan.form.frame_bytes * plan.frames > _LARGE,
            _deflated(data) if syntax.is_deflated else data,
        )


def _values(study: Study, series: Series, plan: Blueprint, number: int) -> dict[int, bytes]:
    """What is this instance's own. Whatever the number, each has one length."""
    moment = f"{study.moment(series.number, number * plan.seconds):%H%M%S.%f} ".encode()
    values = {
        _SOP_UID: study.uid_of("instance", series.number, number).encode() + b"\0",
        _CONTENT_TIME: moment,
        _INSTANCE_NUMBER: b"%-6d" % (number + 1),
    }
    if plan.form is not None:
        values[_ACQUISITION_TIME] = moment
    if plan.slices is not None:
        left, z = plan.slices.left, plan.slices.first + number * plan.slices.step
        values[_POSITION] = f"{left:+09.2f}\\{left:+09.2f}\\{z:+09.2f} ".encode()
        values[_LOCATION] = f"{z:+09.2f} ".encode()
    return values


def _describe_pixels(dataset: Dataset, form: Form) -> None:
    """Image Pixel (PS3.3 C.7.6.3), but for the pixels."""
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = form.samples, form.photometric
    if form.colour:
        dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = form.rows, form.columns
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = form.allocated, form.bits, form.bits - 1
    dataset.PixelRepresentation = 0


def _data(head: bytearray, pixels: Iterator[Buffer]) -> Iterator[Buffer]:
    yield head
    yield from pixels


def _deflated(data: Iterator[Buffer]) -> Iterator[Buffer]:
    """The whole data set as one raw deflate stream of even length (PS3.5 A.5)."""
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    out = b"".join([*map(deflate.compress, data), deflate.flush()])
    yield out + b"\0" * (len(out) & 1)


def _pixels(seed: int, syntax: UID, form: Form, positions: list[tuple[float, int]]) -> Iterator[Buffer]:
    """Pixel Data (7FE0,0010): its head, then one frame after the other."""
    tag = struct.pack("<HH", 0x7FE0, 0x0010)
    if syntax.is_encapsulated:
        frames = encoded(seed, form, syntax)
        chosen = [frames[number % ENCODED] for _, number in positions]
        yield tag + b"OB\0\0\xff\xff\xff\xff" + encapsulate(chosen) + b"\xfe\xff\xdd\xe0\0\0\0\0"
        return
    length = form.frame_bytes * len(positions)
    # PS3.5 A.1 and A.2: OW in implicit VR, and wherever more than 8 bits are allocated.
    vr = b"" if syntax.is_implicit_VR else (b"OB\0\0" if form.allocated == 8 else b"OW\0\0")
    yield tag + vr + struct.pack("<L", length)
    for position, number in positions:
        yield frame(seed, form, position, number).data
