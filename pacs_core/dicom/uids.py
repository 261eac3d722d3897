"""UIDs: what a valid one is, the transfer syntaxes and how each encodes a data set, our own UIDs."""

from __future__ import annotations

import re
import uuid
from typing import NamedTuple

IMPLEMENTATION_CLASS_UID = "2.25.109488991647351212918596535657611770338"
"""(0002,0012) of what we write (PS3.7 D.3.3.2): one fixed UUID as PS3.5 B.2 has it."""

IMPLEMENTATION_VERSION_NAME = "PACS_CORE_010"
"""(0002,0013), at most 16 characters (PS3.7 D.3.3.2.3)."""

PRIVATE_INFORMATION_UID = "2.25.81537038575334758479146869327772665478"
"""(0002,0100) of what we write: the layout of our private information (`part10.Reception`)."""

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1.99"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"

_VALID = re.compile(r"(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*))+")


class TransferSyntax(NamedTuple):
    """How a data set is encoded (PS3.5 section 10, Annex A).

    `deflated`: the whole data set is one raw deflate stream (RFC 1951). `encapsulated`: Pixel Data is a
    sequence of fragments (PS3.5 A.4).
    """

    uid: str
    name: str
    implicit: bool = False
    little_endian: bool = True
    deflated: bool = False
    encapsulated: bool = False


_NATIVE = (
    TransferSyntax("1.2.840.10008.1.2", "Implicit VR Little Endian", implicit=True),
    TransferSyntax("1.2.840.10008.1.2.1", "Explicit VR Little Endian"),
    TransferSyntax("1.2.840.10008.1.2.1.99", "Deflated Explicit VR Little Endian", deflated=True),
    TransferSyntax("1.2.840.10008.1.2.2", "Explicit VR Big Endian", little_endian=False),
    TransferSyntax("1.2.840.10008.1.2.4.94", "JPIP Referenced"),
    TransferSyntax("1.2.840.10008.1.2.4.95", "JPIP Referenced Deflate", deflated=True),
    TransferSyntax("1.2.840.10008.1.2.4.204", "JPIP HTJ2K Referenced"),
    TransferSyntax("1.2.840.10008.1.2.4.205", "JPIP HTJ2K Referenced Deflate", deflated=True),
    TransferSyntax("1.2.840.10008.1.2.6.1", "RFC 2557 MIME encapsulation"),
    TransferSyntax("1.2.840.10008.1.2.6.2", "XML Encoding"),
    TransferSyntax("1.2.840.10008.1.2.7.1", "SMPTE ST 2110-20 Uncompressed Progressive Active Video"),
    TransferSyntax("1.2.840.10008.1.2.7.2", "SMPTE ST 2110-20 Uncompressed Interlaced Active Video"),
    TransferSyntax("1.2.840.10008.1.2.7.3", "SMPTE ST 2110-30 PCM Digital Audio"),
    TransferSyntax("1.2.840.10008.1.20", "Papyrus 3 Implicit VR Little Endian", implicit=True),
    # In use, though of one vendor: little endian but for its big endian Pixel Data.
    TransferSyntax(
        "1.2.840.113619.5.2", "Implicit VR Little Endian, Big Endian Pixel Data (GE)", implicit=True
    ),
)
_ENCAPSULATED = (
    ("1.2.840.10008.1.2.1.98", "Encapsulated Uncompressed Explicit VR Little Endian"),
    ("1.2.840.10008.1.2.4.50", "JPEG Baseline (Process 1)"),
    ("1.2.840.10008.1.2.4.51", "JPEG Extended (Process 2 and 4)"),
    ("1.2.840.10008.1.2.4.52", "JPEG Extended (Process 3 and 5)"),
    ("1.2.840.10008.1.2.4.53", "JPEG Spectral Selection, Non-Hierarchical (Process 6 and 8)"),
    ("1.2.840.10008.1.2.4.54", "JPEG Spectral Selection, Non-Hierarchical (Process 7 and 9)"),
    ("1.2.840.10008.1.2.4.55", "JPEG Full Progression, Non-Hierarchical (Process 10 and 12)"),
    ("1.2.840.10008.1.2.4.56", "JPEG Full Progression, Non-Hierarchical (Process 11 and 13)"),
    ("1.2.840.10008.1.2.4.57", "JPEG Lossless, Non-Hierarchical (Process 14)"),
    ("1.2.840.10008.1.2.4.58", "JPEG Lossless, Non-Hierarchical (Process 15)"),
    ("1.2.840.10008.1.2.4.59", "JPEG Extended, Hierarchical (Process 16 and 18)"),
    ("1.2.840.10008.1.2.4.60", "JPEG Extended, Hierarchical (Process 17 and 19)"),
    ("1.2.840.10008.1.2.4.61", "JPEG Spectral Selection, Hierarchical (Process 20 and 22)"),
    ("1.2.840.10008.1.2.4.62", "JPEG Spectral Selection, Hierarchical (Process 21 and 23)"),
    ("1.2.840.10008.1.2.4.63", "JPEG Full Progression, Hierarchical (Process 24 and 26)"),
    ("1.2.840.10008.1.2.4.64", "JPEG Full Progression, Hierarchical (Process 25 and 27)"),
    ("1.2.840.10008.1.2.4.65", "JPEG Lossless, Hierarchical (Process 28)"),
    ("1.2.840.10008.1.2.4.66", "JPEG Lossless, Hierarchical (Process 29)"),
    (
        "1.2.840.10008.1.2.4.70",
        "JPEG Lossless, Non-Hierarchical, First-Order Prediction (Process 14 [Selection Value 1])",
    ),
    ("1.2.840.10008.1.2.4.80", "JPEG-LS Lossless Image Compression"),
    ("1.2.840.10008.1.2.4.81", "JPEG-LS Lossy (Near-Lossless) Image Compression"),
    ("1.2.840.10008.1.2.4.90", "JPEG 2000 Image Compression (Lossless Only)"),
    ("1.2.840.10008.1.2.4.91", "JPEG 2000 Image Compression"),
    ("1.2.840.10008.1.2.4.92", "JPEG 2000 Part 2 Multi-component Image Compression (Lossless Only)"),
    ("1.2.840.10008.1.2.4.93", "JPEG 2000 Part 2 Multi-component Image Compression"),
    ("1.2.840.10008.1.2.4.100", "MPEG2 Main Profile / Main Level"),
    ("1.2.840.10008.1.2.4.100.1", "Fragmentable MPEG2 Main Profile / Main Level"),
    ("1.2.840.10008.1.2.4.101", "MPEG2 Main Profile / High Level"),
    ("1.2.840.10008.1.2.4.101.1", "Fragmentable MPEG2 Main Profile / High Level"),
    ("1.2.840.10008.1.2.4.102", "MPEG-4 AVC/H.264 High Profile / Level 4.1"),
    ("1.2.840.10008.1.2.4.102.1", "Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.1"),
    ("1.2.840.10008.1.2.4.103", "MPEG-4 AVC/H.264 BD-compatible High Profile / Level 4.1"),
    ("1.2.840.10008.1.2.4.103.1", "Fragmentable MPEG-4 AVC/H.264 BD-compatible High Profile / Level 4.1"),
    ("1.2.840.10008.1.2.4.104", "MPEG-4 AVC/H.264 High Profile / Level 4.2 For 2D Video"),
    ("1.2.840.10008.1.2.4.104.1", "Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.2 For 2D Video"),
    ("1.2.840.10008.1.2.4.105", "MPEG-4 AVC/H.264 High Profile / Level 4.2 For 3D Video"),
    ("1.2.840.10008.1.2.4.105.1", "Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.2 For 3D Video"),
    ("1.2.840.10008.1.2.4.106", "MPEG-4 AVC/H.264 Stereo High Profile / Level 4.2"),
    ("1.2.840.10008.1.2.4.106.1", "Fragmentable MPEG-4 AVC/H.264 Stereo High Profile / Level 4.2"),
    ("1.2.840.10008.1.2.4.107", "HEVC/H.265 Main Profile / Level 5.1"),
    ("1.2.840.10008.1.2.4.108", "HEVC/H.265 Main 10 Profile / Level 5.1"),
    ("1.2.840.10008.1.2.4.201", "High-Throughput JPEG 2000 Image Compression (Lossless Only)"),
    (
        "1.2.840.10008.1.2.4.202",
        "High-Throughput JPEG 2000 with RPCL Options Image Compression (Lossless Only)",
    ),
    ("1.2.840.10008.1.2.4.203", "High-Throughput JPEG 2000 Image Compression"),
    ("1.2.840.10008.1.2.4.110", "JPEG XL Lossless"),
    ("1.2.840.10008.1.2.4.111", "JPEG XL JPEG Recompression"),
    ("1.2.840.10008.1.2.4.112", "JPEG XL"),
    ("1.2.840.10008.1.2.5", "RLE Lossless"),
    ("1.2.840.10008.1.2.8.1", "Deflated Image Frame Compression"),
)

TRANSFER_SYNTAXES: dict[str, TransferSyntax] = {
    **{syntax.uid: syntax for syntax in _NATIVE},
    **{uid: TransferSyntax(uid, name, encapsulated=True) for uid, name in _ENCAPSULATED},
}

_NO_DATA_SETS = frozenset({"1.2.840.10008.1.2.6.1", "1.2.840.10008.1.2.6.2"})  # MIME, XML

STORABLE = tuple(uid for uid in TRANSFER_SYNTAXES if uid not in _NO_DATA_SETS)
"""Every transfer syntax that a data set can cross an association in, retired ones too."""


def transfer_syntax(uid: str) -> TransferSyntax:
    """The transfer syntax of that UID.

    One that we do not know is taken for explicit VR little endian with encapsulated Pixel Data, as nearly
    every syntax added to the standard is (PS3.5 A.4); its name is empty.
    """
    return TRANSFER_SYNTAXES.get(uid) or TransferSyntax(uid, "", encapsulated=True)


def is_valid_uid(uid: str) -> bool:
    """Whether `uid` obeys PS3.5 9.1: components of digits without leading zeros, 64 characters at most."""
    return len(uid) <= 64 and _VALID.fullmatch(uid) is not None and uid.isascii()


def new_uid() -> str:
    """A UID that nobody has had before: made of a random UUID (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid4().int}"
