"""Data sets written in other encodings and read again, as they are and changed, which must give the same.

Input: encodings and number of edits (a byte), four bytes for each edit, then the data set. What is compared is the
JSON Model: of all elements, text and numbers the same however they are encoded.
"""

import binascii
import json

from libc.stdint cimport uint8_t

from pacs_core._ext.encode import encode
from pacs_core._ext.parsing import parse

from pacs_core.dicom import charset, dictionary
from pacs_core.dicom.dataset import Dataset
from pacs_core.errors import InvalidValueError, UnparsableError

cdef enum:
    HEAD = 1
    EDIT = 4

# implicit, little endian
cdef tuple ENCODINGS = ((False, True), (True, True), (False, False))
cdef list SETS = [None, "ISO_IR 192", "ISO_IR 100", "\\ISO 2022 IR 87", "ISO_IR 13", "GB18030", "\\ISO 2022 IR 149", ""]
cdef list TEXTS = ["", "Doe^Jane", "Müller^Jörg", "山田^太郎=やまだ", "a\\b \\", "김희중", " x", "\\"]
cdef list VALUES = [
    ("PatientName", None), ("PatientComments", None), ("OtherPatientNames", None), ("ImageType", None),
    ((0x0009, "ACME", 0x10), "LO"), ("Rows", 7), ("PixelSpacing", ["1.5", "2"]), ("FrameIncrementPointer", 0x00181063),
    ("RealWorldValueSlope", float("nan")), ("PixelData", b"odd"), ("PixelData", [b"", b"\xff\xd8\xff"]),
    ("LUTData", b"\1\2\3\4"), ("PixelRepresentation", 1), ("SmallestImagePixelValue", 3), ("StudyDate", "20240102"),
    ("ReferencedSeriesSequence", [{"PatientID": "in"}, {}]),
]


cdef bytes written(ds, tuple encoding):
    return b"".join(encode(ds, charset.encode, implicit=encoding[0], little=encoding[1]))


cdef dict model(str text):
    """What a data set says, without what writing leaves out."""
    return {tag: attribute for tag, attribute in json.loads(text).items() if tag >= "0003"}


cdef bint same(dict before, dict after, bint implicit) except -1:
    if before.keys() != after.keys():
        return False
    for tag, one in before.items():
        other = after[tag]
        if implicit and not is_told(tag, one["vr"]):
            continue
        if one["vr"] == "SQ":
            items, others = one.get("Value", ()), other.get("Value", ())
            if len(items) != len(others) or not all([same(a, b, implicit) for a, b in zip(items, others)]):
                return False
        elif one != other and padded(one) != padded(other):
            return False
    return True


cdef padded(dict attribute):
    data = binascii.a2b_base64(attribute.get("InlineBinary", ""))
    return attribute["vr"], attribute.get("Value"), data + bytes(len(data) & 1)


cdef bint is_told(str tag, str vr) except -1:
    """Whether the dictionary tells the VR of an element that lost it."""
    entry = dictionary.entry(int(tag, 16))
    return entry is not None and entry.vrs == (vr,)


cdef bint names_sets_oddly(ds) except -1:
    """Whether a Specific Character Set comes as words or numbers: it is then other bytes in other encodings."""
    return any([element.tag == 0x00080005 and element.vr != "CS" for element in ds.walk()])


def edit(ds, const uint8_t[:] how):
    """Change one thing, somewhere."""
    places = [ds]
    for element in ds.walk():
        if element.vr == "SQ":
            places += element.value
        if len(places) > 100:
            break
    place = places[how[1] % len(places)]
    found = list(place)
    element = found[how[2] % len(found)] if found else None
    if how[0] == 0:
        key, value = VALUES[how[2] % len(VALUES)]
        if value is None:
            place.set(key, TEXTS[how[3] % len(TEXTS)])
        elif value == "LO":
            place.set(key, TEXTS[how[3] % len(TEXTS)], value)
        else:
            place.set(key, value)
    elif how[0] == 1:
        place.SpecificCharacterSet = SETS[how[2] % len(SETS)]
    elif element is None:
        place.PatientID = "first"
    elif how[0] == 2:
        del place[element.tag]
    elif how[0] == 3:
        place.set(element.tag, element.value, element.vr)
    elif element.vr == "SQ":
        sequence = element.value
        if how[0] == 4:
            sequence.append(Dataset(PatientName="Müller"))
        elif how[0] == 5:
            sequence.insert(how[3], ds.copy())
        elif how[0] == 6 and len(sequence):
            del sequence[how[3] % len(sequence)]
        elif how[0] == 7:
            place.set("OtherPatientIDsSequence", sequence.copy())


def come_back(ds, bytes data, tuple encoding, given):
    """Read what was written again, unless it is what was read."""
    if data == given:
        return
    before = ds.to_json()
    again = parse(Dataset, data, implicit=encoding[0], little=encoding[1])
    if again.encoding != encoding:
        return  # what comes first looks like something else
    after = again.to_json()
    if before != after and not same(model(before), model(after), encoding[0]) and not names_sets_oddly(ds):
        raise AssertionError(f"{before}\n is now\n{after}\n of {data}")


def check(const uint8_t[:] head, data):
    own, target = ENCODINGS[head[0] % 3], ENCODINGS[head[0] // 3 % 3]
    try:
        ds = parse(Dataset, data, implicit=own[0], little=own[1])
        own = ds.encoding
        fresh = written(ds, target)
        for _ in ds.walk():  # which opens all sequences
            pass
    except (UnparsableError, InvalidValueError):
        return
    if ds.changed or written(ds, target) != fresh:
        raise AssertionError("looking at it changed it")
    if not ds.truncated and not bytes(data).startswith(fresh if target == own else written(ds, own)):
        raise AssertionError("what was not changed is not written as it was")
    come_back(ds, fresh, target, data)
    if len(head) == HEAD:
        return
    try:
        for at in range(HEAD, len(head), EDIT):
            edit(ds, head[at:at + EDIT])
        ds = ds.copy()
        come_back(ds, written(ds, target), target, data)
    except (InvalidValueError, UnparsableError):
        pass


cdef api int one_input(const uint8_t* data, size_t size) except -1:
    cdef size_t head
    if size >= HEAD:
        head = HEAD + EDIT * (data[0] >> 4)
        if size > head:  # a view of it, not a copy: one byte too many read is then an overrun
            check(<const uint8_t[:head]>data, memoryview(<const uint8_t[:size - head]>(data + head)))
    return 0
