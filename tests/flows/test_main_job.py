"""The main job on real input: modalities send; everything is kept as sent, indexed, found, rebuilt."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import UID, ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as StudyRoot

from pacs_core.archive import Archive
from pacs_core.dicom.part10 import split
from pacs_core.dicom.uids import STORABLE
from tests.make import encoded, instance
from tests.raw import RawSender
from tests.serving import pacs_core, serving, stats
from tests.wiretap import Wiretap


def sendable(files: list[Path]) -> dict[str, Path]:
    """SOP Instance UID to file, the first of each, of those that have what a C-STORE request needs."""
    found: dict[str, Path] = {}
    for path in files:
        ds = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        meta = getattr(ds, "file_meta", {})
        if ds.get("SOPInstanceUID") and ds.get("SOPClassUID") and meta.get("TransferSyntaxUID"):
            found.setdefault(str(ds.SOPInstanceUID), path)
    return found


def kept_data_sets(archive: Path) -> Counter[bytes]:
    """The bytes of every kept data set, from the files that `export` writes."""
    out = archive.parent / "exported"
    pacs_core("export", "--archive", str(archive), str(out))
    return Counter(bytes(split(path)[1]) for path in out.rglob("*.dcm"))


def queried(port: int) -> list[str]:
    """Study Instance UIDs that C-FIND gives."""
    ae = AE()
    ae.add_requested_context(StudyRoot)
    assoc = ae.associate("127.0.0.1", port)
    identifier = pydicom.Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    identifier.StudyInstanceUID = ""
    found = [ds.get("StudyInstanceUID", "") for _, ds in assoc.send_c_find(identifier, StudyRoot) if ds]
    assoc.release()
    return found


def dump(archive: Path) -> object:
    """All that the index holds, but where the bytes are."""
    with Archive.open(archive, create=False) as opened:
        return opened.index.dump(locators=False)


@pytest.mark.filterwarnings("ignore")  # the samples are odd on purpose; pydicom says so
def test_samples_sent_by_dcmtk_are_kept_indexed_and_rebuilt(
    tmp_path: Path, sample_files: list[Path], storescu: Path
) -> None:
    archive = tmp_path / "archive"
    files = sendable(sample_files)
    with serving(archive, "--set", "wire.accept_unknown_sop_classes=true") as server:
        tap = Wiretap(server.port)
        refused = {}
        for path in files.values():
            # Only the file's own transfer syntax is proposed: storescu then converts nothing.
            sent = subprocess.run(
                [str(storescu), "-v", "-xf", *_profile(tmp_path, path), "127.0.0.1", str(tap.port), path],
                capture_output=True,
                text=True,
                check=False,
            )
            if "Received Store Response (Success)" not in sent.stdout + sent.stderr:
                refused[path.name] = (sent.stdout + sent.stderr)[-300:]
        tap.close()
        # What the client can't read or refuses to send never reaches us; all that crossed was acknowledged.
        acknowledged = len(files) - len(refused)
        assert acknowledged == len(tap.data_sets), refused
        assert acknowledged > 0.9 * len(files), refused
        held = stats(archive)
        assert held["instances"] == acknowledged
        assert len(queried(server.port)) == held["studies"]
        assert server.stop() == 0
    assert kept_data_sets(archive) == Counter(tap.data_sets)
    pacs_core("verify", "--archive", str(archive))
    before = dump(archive)
    shutil.rmtree(archive / "index")
    pacs_core("reindex", "--archive", str(archive))
    assert dump(archive) == before
    pacs_core("verify", "--archive", str(archive))


def _profile(folder: Path, path: Path) -> list[str]:
    """A storescu association profile that proposes just what the file is."""
    meta = pydicom.filereader.read_file_meta_info(path)
    ds = pydicom.dcmread(path, stop_before_pixels=True, force=True)
    config = folder / "storescu.cfg"
    config.write_text(
        "[[TransferSyntaxes]]\n[One]\n"
        f"TransferSyntax1 = {meta.TransferSyntaxUID}\n"
        "[[PresentationContexts]]\n[One]\n"
        f"PresentationContext1 = {ds.SOPClassUID}\\One\n"
        "[[Profiles]]\n[One]\nPresentationContexts = One\n"
    )
    return [str(config), "One"]


def test_every_transfer_syntax_is_kept_byte_for_byte(tmp_path: Path) -> None:
    """The data set is opaque: whatever its transfer syntax, what crossed the wire is what is kept."""
    archive = tmp_path / "archive"
    sent: Counter[bytes] = Counter()
    with serving(archive) as server:
        for number, syntax in enumerate(STORABLE, 1):
            ds = instance(number, PixelData=bytes([number]) * 512)
            # pydicom does not know the private one, which is implicit VR little endian.
            data = encoded(ds, ImplicitVRLittleEndian if UID(syntax).is_private else syntax)
            with RawSender(server.port, syntax) as sender:
                assert sender.store(str(ds.SOPInstanceUID), data).status == 0x0000, UID(syntax).name
            sent[data] += 1
        assert server.stop() == 0
    assert kept_data_sets(archive) == sent
    pacs_core("verify", "--archive", str(archive))
