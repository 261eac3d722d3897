"""What fuzzing starts from: sound inputs of every target, beside the found ones in corpus/.

python -m tests.fuzz.seeds FOLDER writes them to FOLDER/TARGET.
"""

import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from pydicom.dataset import Dataset

from pacs_core._ext import associate, command, negotiation, pdu, record
from tests.make import CT, encoded, instance

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
BIG = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
VERIFICATION = "1.2.840.10008.1.1"
ABORT = associate.encode_abort(2, 6)

REQUESTED, REPLIED, TRANSFER, RELEASING = range(4)
TRACE, HOARD, DISCARD, ONE_BLOCK, OURS = 4, 8, 16, 32, 64


def commands() -> Iterator[bytes]:
    """A command set of each kind."""
    yield command.encode_echo_rq(1)
    yield command.encode_store_rq(
        7, CT, "1.2.3", move_originator_ae_title="MOVER", move_originator_message_id=3
    )
    yield command.encode({0x0100: 0x0FFF, 0x0120: 7, 0x0800: 0x0101})
    failed = {0x0100: 0x8001, 0x0120: 7, 0x0800: 0x0101, 0x0900: 0xA900, 0x0901: (0x00080018,), 0x0902: "no"}
    yield command.encode({0x0002: CT, 0x1000: "1.2.3", **failed})
    yield command.encode({0x0002: CT, 0x0100: 0x8021, 0x0120: 2, 0x0800: 0x0101, 0x0900: 0xFF00, 0x1020: 9})
    yield command.encode(
        {0x0003: CT, 0x0100: 0x0110, 0x0110: 5, 0x0800: 1, 0x1001: "1.2", 0x1005: (0x00100010,)}
    )


def request() -> bytes:
    """An association request with every item there is."""
    return associate.encode_request(
        called_ae_title="PACSCORE",
        calling_ae_title="FUZZ",
        contexts=[(1, VERIFICATION, [IMPLICIT]), (3, CT, [EXPLICIT, IMPLICIT]), (255, "1.2.3", [BIG])],
        maximum_length=16384,
        implementation_class_uid="1.2.3",
        implementation_version_name="SEED",
        roles={CT: (True, True)},
        async_ops=(1, 1),
        extended={CT: b"\x01"},
        common_extended={CT: ("1.2.840.10008.4.2", (VERIFICATION,))},
        user_identity=(2, True, b"name", b"word"),
    )


def conversations() -> Iterator[bytes]:
    """Associations from either side: begun, used, ended."""
    echo, store, *others = commands()
    data = encoded(instance(size=512))
    large = encoded(instance(size=9000))

    def said(first: int, *parts: bytes, maximum: int = 0, pieces: tuple[int, int] = (0, 0)) -> bytes:
        return bytes((first, maximum, *pieces)) + b"".join(parts)

    def message(context_id: int, command_set: bytes, data_set: bytes = b"", longest: int = 1024) -> bytes:
        parts = pdu.fragment(context_id, command_set, True, longest)
        if data_set:
            parts += pdu.fragment(context_id, data_set, False, longest)
        return b"".join(parts)

    yield said(REQUESTED, request(), message(1, echo), associate.RELEASE_RQ)
    yield said(REQUESTED | OURS, request(), message(3, store, data), ABORT, pieces=(1, 100))
    yield said(TRANSFER, message(3, store, data), message(1, others[0]), associate.RELEASE_RQ, maximum=16)
    yield said(TRANSFER | TRACE, message(3, store, data), message(1, echo), pieces=(30, 7))
    yield said(TRANSFER | HOARD | ONE_BLOCK, message(3, store, data), message(3, store, data))
    yield said(TRANSFER | DISCARD, message(3, store, large, 4096), message(1, echo))
    yield said(TRANSFER | ONE_BLOCK, message(3, store, large, 4096), message(3, store, data))
    for other in others:
        yield said(RELEASING, message(1, other), associate.RELEASE_RP)
    supported = negotiation.Supported([(VERIFICATION, [IMPLICIT], None, None), (CT, [IMPLICIT], True, True)])
    asked = associate.decode_request(request())
    accept = associate.encode_accept(
        asked,
        associate.negotiate(supported, asked),
        maximum_length=0,
        implementation_class_uid="1.2.3",
        implementation_version_name="SEED",
        extended={CT: b"\x01"},
        identity_response=b"token",
    )
    yield said(REPLIED, accept, message(1, echo), associate.RELEASE_RQ)
    yield said(REPLIED, associate.encode_reject(1, 1, 7))


def data_sets() -> Iterator[Dataset]:
    """Small ones, with what the walk tells apart."""
    yield instance(size=16)
    yield instance(size=16, PatientName="Müller^Jörg", SpecificCharacterSet="ISO_IR 100")
    yield instance(
        size=16,
        PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう",
        SpecificCharacterSet=["", "ISO 2022 IR 87"],
        ImageComments="x" * 8200,
    )
    nested = instance(size=16, SpecificCharacterSet="ISO_IR 192", PatientName="Ωμέγα", StudyDate="20240102")
    inner = Dataset()
    inner.PatientID = "inner"
    nested.OtherPatientIDsSequence = [inner, inner]
    nested.ReferencedSeriesSequence = [Dataset()]
    nested["ReferencedSeriesSequence"].is_undefined_length = True
    nested.ReferencedSeriesSequence[0].is_undefined_length_sequence_item = True
    nested.add_new(0x00091010, "UN", b"abcd")
    nested.add_new(0x0009100A, "OB", b"\0" * 4)
    yield nested
    numbers = instance(size=16)  # of another VR than they have: read by the one they come with
    numbers.add_new(0x00280010, "FL", [1.5, -1e30])
    numbers.add_new(0x00280011, "SL", [-1, 7])
    numbers.add_new(0x00280100, "AT", 0x00100010)
    numbers.add_new(0x00200013, "FD", 0.1)
    numbers.add_new(0x00200011, "SV", -(2**63))
    yield numbers
    step = Dataset()
    step.SpecificCharacterSet = "ISO_IR 144"
    step.ScheduledProcedureStepID, step.RequestedProcedureDescription = "S1", "Люкс"
    step.ScheduledProtocolCodeSequence = [instance(size=2)]
    step["ScheduledProtocolCodeSequence"].is_undefined_length = True
    other = Dataset()
    other.AccessionNumber = "A1"
    for undefined in (False, True):  # a sequence whose items are kept
        requested = instance(size=16, RequestAttributesSequence=[step, other])
        requested["RequestAttributesSequence"].is_undefined_length = undefined
        step.is_undefined_length_sequence_item = undefined
        yield requested


def oddities() -> Iterator[bytes]:
    """Data sets in explicit VR little endian that are not quite, or say the same in rare ways."""
    class_uid, rows = b"\x08\0\x16\0UI\x04\x001.2\0", b"\x28\0\x10\0US\x02\0\x10\0"
    private, sequence = b"\x09\0\x10\x10", b"\x08\0\x40\x11SQ\0\0"
    item, item_end, end = b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0" + bytes(4), b"\xfe\xff\xdd\xe0" + bytes(4)
    name, open_, none = b"\x10\0\x10\0PN\x06\0IN^SQ ", b"\xff" * 4, bytes(4)
    for middle in (
        sequence + b"\x16\0\0\0" + item + b"\x0e\0\0\0" + name,
        sequence + open_ + item + open_ + name + item_end + item + none + end,
        sequence + open_ + item + open_ + name + end,  # the item is not ended
        sequence + open_ + item + none,  # the sequence is not ended
        private + b"UN\0\0" + open_ + item + open_ + name[:4] + b"\x06\0\0\0IN^UN " + item_end + end,
        private + b"UN\0\0" + open_ + item + open_ + name + item_end + end,
        private + b"OB\0\0" + open_ + item + none + item + b"\x04\0\0\0\xff\xd8\xff\xd9" + end,
        private + b"OB\0\0" + open_ + b"no items" + end,
        sequence[:4] + b"UN\0\0\x10\0\0\0" + item + b"\x08\0\0\0" + name[:4] + none,
        private + b"\x04\0\0\0abcd",
        private + b"??\x04\0abcd",
        private + b"ZZ\0\0\x04\0\0\0abcd",
        private + b"OB\x04\0abcd",
        private + b"LO\x03\0abc",
        2 * (private + b"LO\0\0"),
        private + b"OB\0\0\xf0" + b"\xff" * 3,  # 4 GB
        item_end + item + b"\x0e\0\0\0" + name,
    ):
        yield class_uid + middle + rows


def headers(*syntaxes: str) -> Iterator[bytes]:
    """Each data set in each transfer syntax, the syntax's place in front, and a size of pieces."""
    for place, syntax in enumerate(syntaxes):
        for piece, data_set in enumerate(data_sets()):
            yield bytes((place, 5 * piece)) + encoded(data_set, syntax)


def changes() -> Iterator[bytes]:
    """Data sets, each to be written in another encoding, with edits of every kind."""
    for place, syntax in enumerate((EXPLICIT, IMPLICIT, BIG)):
        for number, data_set in enumerate(data_sets()):
            edits = b"".join(bytes((kind, number, kind + number, number)) for kind in range(number))
            yield bytes((place + 3 * (number % 3) + 16 * number,)) + edits + encoded(data_set, syntax)
    for number, odd in enumerate(oddities()):
        yield bytes((3 * (number % 3),)) + odd


def views() -> Iterator[bytes]:
    """Data sets in each encoding, one more thing or nothing being asked of each."""
    for how, syntax in enumerate((EXPLICIT, IMPLICIT, BIG)):
        for number, data_set in enumerate(data_sets()):
            yield bytes((how + (0, 4, 8, 16)[number % 4],)) + encoded(data_set, syntax)
    for number, odd in enumerate(oddities()):
        yield bytes(((0, 4, 8, 16)[number % 4],)) + odd


def records() -> Iterator[bytes]:
    """A record of each level, and fields."""

    def text(value: bytes) -> bytes:
        return bytes((len(value),)) + value

    merged = b"\x01" + struct.pack("<Q", 9) + b"\x01\x02" + text(b"Doe^Jane")
    tally = b"\x01\x02" + text(b"CT")
    claim = b"\x01\x00\x02" + struct.pack("<Q", 9) + text(b"P1") + text(b"") + merged
    yield b"\x00\x01\x00\x01\x02\x03" + text(b"P1") + text(b"") + merged
    yield b"\x01\x01" + bytes(8) + b"\x01\x02\x03" + text(b"1.2") + text(b"") + merged + 2 * tally + claim
    yield b"\x02\x01" + bytes(8) + b"\x02\x03" + text(b"1.2.3") + merged
    received = text(b"1.2.3.4") + text(EXPLICIT.encode()) + text(b"SENDER")
    yield b"\x03\x01" + bytes(28) + b"\x00\x01\x02" + received + b"\x01\x02" + text(b"1")
    yield b"\x04" + record.pack({0x00080018: b"1.2.3.4", 0x00100010: b"Doe^Jane", 0x00100020: b"P1"})


def batches() -> Iterator[bytes]:
    """Instances of two studies, sent twice, the second time to another place, and one removed."""
    first = [bytes((0, number | number << 4, number)) + b"20240102" + bytes(21) for number in range(3)]
    again = [bytes((2, number, 4 + number)) + b"Doe^Jane".ljust(29) for number in range(3)]
    yield b"".join(first) + bytes((4, 3, 3)) + b"CT"
    yield b"".join(first) + bytes((4, 3, 3)).ljust(32) + b"".join(again) + bytes((1, 1, 1))


def main(folder: Path) -> None:
    """Write them all."""
    seeds = {
        "catalog": batches(),
        "command": commands(),
        "dataset": views(),
        "deflated": (header[1:] for header in headers(DEFLATED)),
        "record": records(),
        "rewritten": changes(),
        "scan": headers(EXPLICIT, IMPLICIT, BIG),
        "tape": (*headers(EXPLICIT, IMPLICIT, BIG), *(b"\0\x02" + odd for odd in oddities())),
        "walk": headers(EXPLICIT, IMPLICIT, BIG),
        "wire": conversations(),
    }
    for target, inputs in seeds.items():
        (folder / target).mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(inputs):
            (folder / target / f"{number:02}").write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
