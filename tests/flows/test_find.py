"""C-FIND against a real `pacs-core serve`: identifiers in every transfer syntax, cancel, what is refused."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from datetime import date, time

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation
from pynetdicom.sop_class import (
    PatientRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelFind,
)

import pacs_core
from pacs_core._ext.associate import decode_accept
from pacs_core._ext.command import Command, encode
from tests.flows.rawpeer import Peer, p_data, pdv
from tests.make import instance, part10, uid
from tests.serving import Serving, serving
from tests.serving import pacs_core as pacs_core_command

SYNTAXES = {
    "implicit": "1.2.840.10008.1.2",
    "explicit": "1.2.840.10008.1.2.1",
    "big endian": "1.2.840.10008.1.2.2",
    "deflated": "1.2.840.10008.1.2.1.99",
}
STUDY = StudyRootQueryRetrieveInformationModelFind
PATIENT = PatientRootQueryRetrieveInformationModelFind
MANY = 3000


def request(step: str, procedure: str) -> Dataset:
    """An item of a Request Attributes Sequence, of a character set of its own."""
    item = Dataset()
    item.SpecificCharacterSet = "ISO_IR 192"
    item.ScheduledProcedureStepID, item.RequestedProcedureID = step, procedure
    item.ScheduledProtocolCodeSequence = [Dataset()]
    return item


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("find") / "archive") as server:
        images = [
            instance(1, PatientName="Müller^Jürgen", SpecificCharacterSet="ISO_IR 100", ImageType=["A", "B"]),
            instance(2, series=2, RequestAttributesSequence=[request("1", "R7"), request("Ü2", "R8")]),
        ]
        one = part10(instance(10000, study=2, patient="MANY", size=2))  # many are made of it: that is quick
        many = [one.replace(b"10000", b"%d" % (10000 + number)) for number in range(MANY)]
        client = pacs_core.Client("127.0.0.1", server.port)
        sent = client.store([*map(part10, images), *many], associations=8)
        assert all(each.status == 0 for each in sent)
        yield server
        assert server.stop() == 0


def ask(
    server: Serving,
    level: str,
    root: str = STUDY,
    syntax: str = "explicit",
    negotiated: bytes = b"\0",
    **keys: object,
) -> list[Dataset]:
    """The responses of a query; the last is the final one's status."""
    entity = AE()
    entity.add_requested_context(root, SYNTAXES[syntax])
    extended = SOPClassExtendedNegotiation()
    extended.sop_class_uid, extended.service_class_application_information = root, negotiated
    association = entity.associate("127.0.0.1", server.port, ae_title="PACSCORE", ext_neg=[extended])
    assert association.is_established
    assert association.acceptor.sop_class_extended == {root: negotiated}
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    responses = list(association.send_c_find(identifier, root))
    association.release()
    assert all(status.Status == 0xFF00 for status, _ in responses[:-1])
    return [*(found for _, found in responses[:-1]), responses[-1][0]]


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_responses_are_in_the_transfer_syntax_of_the_query(server: Serving, syntax: str) -> None:
    keys = {"StudyInstanceUID": uid(1), "SeriesInstanceUID": uid(1, 1), "SOPInstanceUID": ""}
    found, final = ask(
        server, "IMAGE", syntax=syntax, **keys, PatientName="", Rows=None, ImageType="", InstanceNumber=""
    )
    assert final.Status == 0
    assert found.SpecificCharacterSet == "ISO_IR 192"
    assert found.SOPInstanceUID == uid(1, 1, 1)
    assert found.PatientName == "Müller^Jürgen"
    assert (found.Rows, list(found.ImageType), found.InstanceNumber) == (1, ["A", "B"], 1)
    assert (found.QueryRetrieveLevel, found.RetrieveAETitle) == ("IMAGE", "PACSCORE")
    assert "StudyDate" not in found


def test_21_a_key_that_was_not_asked_for_is_not_told(server: Serving) -> None:
    found, _ = ask(server, "STUDY", StudyInstanceUID=uid(1))
    assert {element.keyword for element in found} == {
        *("QueryRetrieveLevel", "RetrieveAETitle", "InstanceAvailability", "StudyInstanceUID"),
    }


@pytest.mark.filterwarnings("ignore:Invalid value for VR")  # pydicom's, of keys that are no values
@pytest.mark.parametrize(
    ("keys", "studies"),
    [
        ({"PatientName": "m*"}, [1]),
        ({"PatientName": "MÜLLER^*"}, [1]),
        ({"PatientName": "*e^jan?"}, [2]),
        ({"PatientName": "nobody"}, []),
        ({"PatientID": "P1"}, [1]),
        ({"PatientID": "?ANY"}, [2]),
        ({"StudyDate": "20240101-20240131"}, [1, 2]),
        ({"StudyDate": "-20231231"}, []),
        ({"StudyDate": "20240102", "StudyTime": "10-1012"}, [1, 2]),
        ({"StudyDate": "20240102", "StudyTime": "1012-"}, []),
        ({"ModalitiesInStudy": ["MR", "CT"], "StudyDate": "2024-"}, [1, 2]),
        ({"ModalitiesInStudy": "MR"}, []),
        ({"AccessionNumber": "A2"}, [2]),
        ({"AccessionNumber": "a2"}, []),
        ({"StudyInstanceUID": [uid(1), uid(9)]}, [1]),
        ({"StudyInstanceUID": "*"}, []),
        ({"StudyDescription": "*", "ReferringPhysicianName": "roe^richard"}, [1, 2]),
    ],
)
def test_17_to_20_keys_match_as_the_standard_says(
    server: Serving, keys: dict[str, object], studies: list[int]
) -> None:
    asked = {"StudyInstanceUID": "", **keys}
    *found, final = ask(server, "STUDY", SpecificCharacterSet="ISO_IR 192", **asked)
    assert final.Status == 0
    assert sorted(match.StudyInstanceUID for match in found) == [uid(number) for number in studies]


def test_22_counts_and_modalities_of_a_study(server: Serving) -> None:
    keys = {"NumberOfStudyRelatedSeries": "", "NumberOfStudyRelatedInstances": "", "ModalitiesInStudy": ""}
    found, _ = ask(server, "STUDY", StudyInstanceUID=uid(2), **keys)
    assert (found.NumberOfStudyRelatedSeries, found.NumberOfStudyRelatedInstances) == (1, MANY)
    assert found.ModalitiesInStudy == "CT"


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({}, [{"ScheduledProcedureStepID": "1"}, {"ScheduledProcedureStepID": "Ü2"}]),
        ({"ScheduledProcedureStepID": "1"}, [{"ScheduledProcedureStepID": "1"}]),
        (
            {"ScheduledProcedureStepID": "Ü?", "RequestedProcedureID": ""},
            [{"ScheduledProcedureStepID": "Ü2", "RequestedProcedureID": "R8"}],
        ),
        ({"ScheduledProcedureStepID": "1", "RequestedProcedureID": "R8"}, None),  # not one item of both
    ],
)
def test_items_of_a_sequence_are_matched_one_by_one(
    server: Serving, syntax: str, keys: dict[str, str], told: list[dict[str, str]] | None
) -> None:
    """PS3.4 C.2.2.2.6; an item without keys, or none, matches all."""
    item = Dataset()
    for keyword, value in keys.items():
        setattr(item, keyword, value)
    series = {"StudyInstanceUID": uid(1), "SeriesInstanceUID": ""}
    sets = {"SpecificCharacterSet": "ISO_IR 100" if syntax == "implicit" else "ISO_IR 192"}
    *found, final = ask(server, "SERIES", syntax=syntax, **sets, **series, RequestAttributesSequence=[item])
    assert final.Status == 0
    by_uid = {match.SeriesInstanceUID: match.RequestAttributesSequence for match in found}
    assert by_uid.keys() == ({uid(1, 1), uid(1, 2)} if not keys else {uid(1, 2)} if told else set())
    if told is not None:
        values = [{name: one.get(name) for name in keys or told[0]} for one in by_uid[uid(1, 2)]]
        assert values == told
    if not keys:
        assert not by_uid[uid(1, 1)]
        assert by_uid[uid(1, 2)][0].RequestedProcedureID == "R7"
    # As the instance itself tells it, where more is asked for than the index holds of items.
    if keys:
        item.ReasonForTheRequestedProcedure = ""
    image = series | {"SeriesInstanceUID": uid(1, 2), "SOPInstanceUID": ""}
    *found, _ = ask(server, "IMAGE", syntax=syntax, **sets, **image, RequestAttributesSequence=[item])
    told_by_images = [
        [{n: one.get(n) for n in keys or told[0]} for one in f[0x0040_0275].value] for f in found
    ]
    assert told_by_images == ([told] if told else [])


@pytest.mark.parametrize("sets", ["ISO_IR 100", "ISO_IR 192", "ISO_IR 144", ""])
def test_24_the_response_is_in_the_character_set_of_the_query(server: Serving, sets: str) -> None:
    keys = {"SpecificCharacterSet": sets} if sets else {}
    found, _ = ask(server, "PATIENT", PATIENT, **keys, PatientID="P1", PatientName="")
    assert found.PatientName == "Müller^Jürgen"
    assert found.SpecificCharacterSet == (sets if sets == "ISO_IR 100" else "ISO_IR 192")


def test_21_a_key_that_is_not_supported_is_left_out_and_said(server: Serving) -> None:
    entity = AE()
    entity.add_requested_context(STUDY)
    association = entity.associate("127.0.0.1", server.port, ae_title="PACSCORE")
    identifier = Dataset()
    identifier.QueryRetrieveLevel, identifier.StudyInstanceUID, identifier.AcquisitionNumber = "STUDY", "", ""
    responses = list(association.send_c_find(identifier, STUDY))
    association.release()
    assert [status.Status for status, _ in responses] == [0xFF01, 0xFF01, 0]
    assert all("AcquisitionNumber" not in found for _, found in responses[:-1])


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize(
    ("photometric", "known"), [("", True), ("MONO*", True), ("RGB", False)], ids=["told", "matched", "other"]
)
def test_of_images_the_instances_tell_what_the_index_does_not(
    server: Serving, photometric: str, known: bool
) -> None:
    keys = {"StudyInstanceUID": uid(1), "SeriesInstanceUID": uid(1, 1), "SOPInstanceUID": ""}
    asked = {"PhotometricInterpretation": photometric, "HighBit": None, "WindowCenter": "", "PatientName": ""}
    *found, final = ask(server, "IMAGE", **keys, **asked)
    assert final.Status == 0
    assert len(found) == known
    for match in found:
        assert (match.PhotometricInterpretation, match.HighBit) == ("MONOCHROME2", 15)
        assert match.WindowCenter is None
        assert match.PatientName == "Müller^Jürgen"


@pytest.mark.parametrize(
    ("tag", "known"), [(0x7FE00010, 0xFF01), (0x00091002, 0xFF00)], ids=["pixels", "long"]
)
def test_21_bulk_data_is_not_told(server: Serving, tag: int, known: int) -> None:
    image = instance(1, study=3, size=2)
    image.add_new(0x00090010, "LO", "TEST")
    image.add_new(0x00091002, "UT", "x" * 70000)
    image.PixelData = bytes(200_000)
    (sent,) = pacs_core.Client("127.0.0.1", server.port).store([part10(image)])
    assert sent.status == 0
    entity = AE()
    entity.add_requested_context(STUDY, SYNTAXES["explicit"])
    association = entity.associate("127.0.0.1", server.port, ae_title="PACSCORE")
    identifier = Dataset()
    identifier.QueryRetrieveLevel, identifier.StudyInstanceUID = "IMAGE", uid(3)
    identifier.SeriesInstanceUID, identifier.SOPInstanceUID = uid(3, 1), ""
    identifier.add_new(tag, "OW" if tag == 0x7FE00010 else "UT", b"")
    (status, found), (final, _) = association.send_c_find(identifier, STUDY)
    association.release()
    assert (status.Status, final.Status) == (known, 0)
    assert (tag in found) == (known == 0xFF00)  # without a value, if it is too long
    assert not (tag in found and found[tag].value)


def test_37_a_value_that_its_vr_does_not_allow_costs_that_value_only(server: Serving) -> None:
    odd = part10(instance(1, study=4, size=2)).replace(b"\x28\0\x02\x01US", b"\x28\0\x02\x01DS")
    sent = pacs_core.Client("127.0.0.1", server.port).store([odd, part10(instance(2, study=4, size=2))])
    assert [one.status for one in sent] == [0, 0]
    keys = {"StudyInstanceUID": uid(4), "SeriesInstanceUID": uid(4, 1), "SOPInstanceUID": ""}
    *found, final = ask(server, "IMAGE", **keys, HighBit=None, InstanceNumber="")
    assert final.Status == 0
    assert sorted((match.InstanceNumber, match.HighBit) for match in found) == [(1, None), (2, 15)]


@pytest.mark.parametrize(
    ("level", "root", "keys"),
    [
        ("", STUDY, {}),
        ("HOSPITAL", STUDY, {}),
        ("PATIENT", STUDY, {"PatientID": ""}),
        ("SERIES", STUDY, {"SeriesInstanceUID": ""}),
        ("STUDY", PATIENT, {"StudyInstanceUID": ""}),
        ("SERIES", STUDY, {"StudyInstanceUID": [uid(1), uid(2)]}),
    ],
)
def test_14_15_wrong_levels_and_missing_unique_keys_are_refused(
    server: Serving, level: str, root: str, keys: dict[str, object]
) -> None:
    (final,) = ask(server, level, root, **keys)
    assert final.Status == 0xA900
    assert final.ErrorComment


def test_15_relational_queries_where_they_were_negotiated(server: Serving) -> None:
    *found, final = ask(server, "SERIES", PATIENT, negotiated=b"\1", SeriesInstanceUID=uid(1, 2))
    assert ([match.SeriesInstanceUID for match in found], final.Status) == ([uid(1, 2)], 0)


@pytest.mark.parametrize(
    ("negotiated", "keys", "studies"),
    [
        (b"\0\0\0\0\0\0", {"ModalitiesInStudy": ["CT", "MR"]}, [1, 2]),
        (b"\0\0\0\0\0\1", {"ModalitiesInStudy": ["CT", "MR"]}, []),
        (b"\0\0\0\0\0\1", {"StudyInstanceUID": [uid(1), uid(9)]}, [1]),
        (b"\0\0\0\0\1", {"StudyID": '""'}, []),
        (b"\0\0\0\0\1", {"NameOfPhysiciansReadingStudy": '""'}, [1, 2]),
        (b"\0\0\0\0\0", {"NameOfPhysiciansReadingStudy": '""'}, []),
    ],
)
def test_19_22_empty_and_multiple_values_where_they_were_negotiated(
    server: Serving, negotiated: bytes, keys: dict[str, object], studies: list[int]
) -> None:
    *found, final = ask(
        server, "STUDY", negotiated=negotiated, **{"StudyInstanceUID": [uid(1), uid(2)]} | keys
    )
    assert final.Status == 0
    assert sorted(match.StudyInstanceUID for match in found) == [uid(number) for number in studies]


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize(
    ("negotiated", "keys", "studies"),
    [
        (b"\0", {"PatientName": "muller"}, []),
        (b"\0\0\1", {"PatientName": "muller"}, [1]),
        (b"\0\0\1", {"PatientName": "juergen mue"}, [1]),
        (b"\0\0\1", {"PatientName": "jane\\mu"}, [1, 2]),
        (
            b"\0\0\1",
            {"ReferringPhysicianName": "RICHARD"},
            [1, 2],
        ),
        (b"\0\0\1", {"StudyDescription": "che"}, []),  # of names only
        (b"\0\1", {"StudyDate": "20240101-20240103", "StudyTime": "11-12"}, [1, 2]),
        (b"\0\0\1", {"StudyDate": "20240101-20240103", "StudyTime": "11-12"}, []),
        (b"\0\1", {"StudyDate": "20240101-20240102", "StudyTime": "11-0930"}, []),
        (b"\0\1", {"StudyDate": "20240101-20240102", "StudyTime": "11-10"}, [1, 2]),
    ],
)
def test_18_20_fuzzy_names_and_combined_ranges_where_they_were_negotiated(
    server: Serving, negotiated: bytes, keys: dict[str, object], studies: list[int]
) -> None:
    asked = {"StudyInstanceUID": [uid(1), uid(2)], **keys}
    *found, final = ask(server, "STUDY", negotiated=negotiated, **asked)
    assert final.Status == 0
    assert sorted(match.StudyInstanceUID for match in found) == [uid(number) for number in studies]
    assert all(keyword in match for match in found for keyword in keys)


def test_18_20_our_client_asks_for_both(server: Serving) -> None:
    client = pacs_core.Client("127.0.0.1", server.port)

    def studies(**keys: object) -> list[str]:
        of_these = {"StudyInstanceUID": [uid(1), uid(2)]}
        found = client.find("STUDY", of_these, **keys)  # type: ignore[arg-type]
        return sorted(str(study.StudyInstanceUID) for study in found)

    assert studies(PatientName="juergen mue") == []
    assert studies(PatientName="juergen mue", fuzzy=True) == [uid(1)]
    days, hours = (date(2024, 1, 1), date(2024, 1, 3)), (time(11), time(12))
    one = {"StudyDate": days, "StudyTime": hours, "PatientID": "P1"}
    assert studies(**one) == []
    assert studies(**one, combined=True) == [uid(1)]
    words = ("find", "127.0.0.1", str(server.port), "--format", "csv")
    assert (
        pacs_core_command(
            *words, f"StudyInstanceUID={uid(1)}", "PatientName=juergen mue", "--fuzzy"
        ).stdout.count("\n")
        == 2
    )
    ranges = ("StudyDate=20240101-20240103", "StudyTime=11-12", f"StudyInstanceUID={uid(1)}")
    assert pacs_core_command(*words, *ranges, "--combined").stdout.count("\n") == 2


def test_a_peer_that_takes_no_combined_ranges_is_not_asked() -> None:
    entity = AE()
    entity.add_supported_context(STUDY)
    peer = entity.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, lambda _: iter(()))]
    )
    try:
        client = pacs_core.Client(*peer.server_address)
        assert list(client.find(StudyDate="2024-", fuzzy=True)) == []
        with pytest.raises(pacs_core.errors.AssociationError, match="one range"):
            list(client.find(StudyDate="20240101-", StudyTime="10-", combined=True))
    finally:
        peer.shutdown()


def test_14_a_request_without_an_identifier_is_refused(server: Serving) -> None:
    classes = [STUDY, STUDY[:-1] + "2", STUDY[:-1] + "3"]
    with Peer(server) as peer:
        contexts = [(2 * n + 1, sop_class, [SYNTAXES["explicit"]]) for n, sop_class in enumerate(classes)]
        peer.associated(contexts=contexts)
        for (ident, sop_class, _), field in zip(contexts, (0x20, 0x21, 0x10), strict=True):
            destination = {0x0600: "ANY"} if field == 0x21 else {}
            command = {0x0002: sop_class, 0x0100: field, 0x0110: 1, **destination, 0x0700: 0, 0x0800: 0x0101}
            peer.send(p_data(pdv(ident, 3, encode(command))))
            assert peer.response().status == 0xA900
        peer.released()


def test_what_we_do_not_do_is_not_agreed_to(server: Serving) -> None:
    with Peer(server) as peer:
        contexts = [(1, STUDY, [SYNTAXES["explicit"]])]
        accept = decode_accept(peer.associated(contexts=contexts, extended={STUDY: b"\1\1\1\1\1\1\1"}))
        assert accept.extended == {STUDY: b"\1\1\1\0\1\1\0"}
        peer.released()


def test_an_identifier_that_is_garbage_is_answered(server: Serving) -> None:
    with Peer(server) as peer:
        peer.associated(contexts=[(1, STUDY, [SYNTAXES["explicit"]])])
        command = encode({0x0002: STUDY, 0x0100: 0x20, 0x0110: 1, 0x0700: 0, 0x0800: 1})
        peer.send(p_data(pdv(1, 3, command), pdv(1, 2, b"\xff" * 500)))
        assert peer.response().status == 0xA900
        peer.released()


KEYS = b"many keys"


@pytest.mark.parametrize(
    "tag", [b"\x10\0\x10\0", b"\x20\0\x0d\0", b"\x28\0\x10\0", KEYS], ids=["PN", "UI", "US", "keys"]
)
def test_14_an_identifier_of_a_million_values_is_refused(server: Serving, tag: bytes) -> None:
    with Peer(server) as peer:
        peer.associated(contexts=[(1, STUDY, [SYNTAXES["implicit"]])])
        command = encode({0x0002: STUDY, 0x0100: 0x20, 0x0110: 1, 0x0700: 0, 0x0800: 1})
        level = b"\x08\0\x52\0\6\0\0\0STUDY "
        data = level + tag + (2_000_000).to_bytes(4, "little") + b"1\\" * 1_000_000
        if tag == KEYS:
            keys = range(0x280002, 0x2A0000)
            data = level + b"".join(struct.pack("<HHL", key >> 16, key & 0xFFFF, 0) for key in keys)
        pieces = [data[at : at + 16000] for at in range(0, len(data), 16000)]
        peer.send(p_data(pdv(1, 3, command)))
        for piece in pieces:
            peer.send(p_data(pdv(1, 2 if piece is pieces[-1] else 0, piece)))
        assert peer.response().status == 0xA700
        peer.released()


def commands(peer: Peer) -> Iterator[int]:
    """The statuses of the responses, whose fragments may share PDUs; the final one is the last."""
    while True:
        pdu = peer.pdu()
        assert pdu[0] == 4
        at = 6
        while at < len(pdu):
            length = int.from_bytes(pdu[at : at + 4], "big")
            if pdu[at + 5] & 1:
                status = Command.decode(pdu[at + 6 : at + 4 + length]).status or 0
                yield status
                if status != 0xFF00:
                    return
            at += 4 + length


@pytest.mark.parametrize("key", [{"PhotometricInterpretation": "RGB"}, {"InstanceNumber": "77777"}], ids=str)
def test_23_a_search_that_finds_nothing_can_be_cancelled(server: Serving, key: dict[str, str]) -> None:
    asked = {"StudyInstanceUID": uid(2), "SeriesInstanceUID": uid(2, 1), **key}
    identifier = pacs_core.Dataset(QueryRetrieveLevel="IMAGE", **asked)
    with Peer(server) as peer:
        peer.associated(contexts=[(1, STUDY, [SYNTAXES["explicit"]])])
        command = encode({0x0002: STUDY, 0x0100: 0x20, 0x0110: 7, 0x0700: 0, 0x0800: 1})
        cancel = encode({0x0100: 0x0FFF, 0x0120: 7, 0x0800: 0x0101})
        query = p_data(pdv(1, 3, command), pdv(1, 2, identifier.to_bytes(SYNTAXES["explicit"])))
        peer.send(query + p_data(pdv(1, 3, cancel)))
        assert list(commands(peer)) == [0xFE00]
        peer.released()


def test_8_23_a_cancel_ends_the_responses(server: Serving) -> None:
    identifier = pacs_core.Dataset(
        QueryRetrieveLevel="IMAGE",
        StudyInstanceUID=uid(2),
        SeriesInstanceUID=uid(2, 1),
        SOPInstanceUID="",
        SOPClassUID="",
    )
    with Peer(server) as peer:
        peer.associated(contexts=[(1, STUDY, [SYNTAXES["explicit"]])])
        command = encode({0x0002: STUDY, 0x0100: 0x20, 0x0110: 7, 0x0700: 0, 0x0800: 1})
        cancel = encode({0x0100: 0x0FFF, 0x0120: 7, 0x0800: 0x0101})
        query = p_data(pdv(1, 3, command), pdv(1, 2, identifier.to_bytes(SYNTAXES["explicit"])))
        peer.send(query + p_data(pdv(1, 3, cancel)))
        *pending, final = commands(peer)
        assert final == 0xFE00
        assert 0 < len(pending) < MANY
        # Cancelling what is over has no effect on the next request of that number.
        peer.send(p_data(pdv(1, 3, cancel)) + query)
        *pending, final = commands(peer)
        assert (len(pending), final) == (MANY, 0)
        peer.released()
