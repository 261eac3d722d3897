"""A worked day: what happens between an order and its images on a doctor's screen, step by step.

    tools/samples/worked_day [--host HOST --port PORT --aec AET]

Without a host it starts a server of its own in a folder that is removed at the end. With one, that PACS must
answer worklist, MPPS, storage commitment and query/retrieve, and have something scheduled for --station.

    schedule > worklist > MPPS start > store > MPPS complete > commit > find > get
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

import numpy as np

from pacs_core import Archive, Client, Dataset, read
from pacs_core.dicom.uids import new_uid

CT = "1.2.840.10008.5.1.4.1.1.2"
IMAGES = 12
SIZE = 256


def say(step: str, what: str) -> None:
    """One line for one step."""
    print(f"{step:<14}{what}", flush=True)


@contextlib.contextmanager
def server(folder: Path) -> Iterator[int]:
    """`pacs-core serve` on a free port; the port."""
    command = [sys.executable, "-m", "pacs_core", "serve", "--archive", str(folder / "archive")]
    command += ["--port", "0", "--set", "log.format=json"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            yield _port(process.stderr)
        finally:
            process.terminate()
            process.communicate()


def _port(log: Iterable[str]) -> int:
    for line in log:
        said = json.loads(line)
        if said.get("event") == "listening":
            return int(said["port"])
    raise SystemExit("the server did not start")


def schedule(archive: Path, station: str) -> None:
    """What the hospital's information system does: an examination for a patient, here, now."""
    now = datetime.now()
    with Archive.open(archive) as opened:
        [step] = opened.worklist.schedule(
            PatientName="Doe^Jane",
            PatientID="4711",
            PatientBirthDate="19700401",
            PatientSex="F",
            AccessionNumber="A0815",
            Modality="CT",
            ScheduledStationAETitle=station,
            ScheduledProcedureStepStartDate=now.date(),
            ScheduledProcedureStepStartTime=now.time().replace(microsecond=0),
            ScheduledProcedureStepDescription="Head",
        )
    say("scheduled", f"CT of Doe^Jane at {station}: step {step.scheduled_procedure_step_id}")


def acquire(item: Dataset, performed: str, number: int, series: str) -> Dataset:
    """What the scanner does: one image, which says what it belongs to."""
    rows = np.hypot(*np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j])
    pixels = (np.clip(1.2 - rows, 0, 1) * 2000 + 40 * number).astype("<u2")
    step = item.ScheduledProcedureStepSequence[0]
    image = Dataset(
        SOPClassUID=CT,
        SOPInstanceUID=new_uid(),
        StudyInstanceUID=item.StudyInstanceUID,
        SeriesInstanceUID=series,
        PatientName=item.PatientName,
        PatientID=item.PatientID,
        AccessionNumber=item.AccessionNumber,
        StudyDate=step.ScheduledProcedureStepStartDate,
        Modality="CT",
        SeriesDescription="Head, axial",
        ProtocolName="Head",
        SeriesNumber=1,
        InstanceNumber=number,
        Rows=SIZE,
        Columns=SIZE,
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        BitsAllocated=16,
        BitsStored=12,
        HighBit=11,
        PixelRepresentation=0,
        PixelData=pixels.tobytes(),
    )
    image["ReferencedPerformedProcedureStepSequence"] = [
        Dataset(ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.3", ReferencedSOPInstanceUID=performed)
    ]
    return image


def day(client: Client, station: str, folder: Path) -> None:
    """The modality's and the doctor's part, towards any PACS."""
    today = datetime.now().date()
    items = list(
        client.worklist(
            ScheduledStationAETitle=station,
            ScheduledProcedureStepStartDate=today,
            PatientName=None,
            PatientID=None,
            PatientBirthDate=None,
            PatientSex=None,
            AccessionNumber=None,
            RequestedProcedureID=None,
            RequestedProcedureDescription=None,
            ReferencedStudySequence=None,
            Modality=None,
            ScheduledProcedureStepStartTime=None,
            ScheduledProcedureStepDescription=None,
        )
    )
    if not items:
        raise SystemExit(f"nothing is scheduled at {station} today")
    item = items[0]
    say("worklist", f"{len(items)} step{'s' * (len(items) != 1)} for {station} today; now {item.PatientName}")

    images = folder / "acquired"
    images.mkdir()
    with client.mpps(item) as step:
        say("MPPS", f"{step.status} {step.uid}")
        series = new_uid()
        for number in range(1, IMAGES + 1):
            acquire(item, step.uid, number, series).save(images / f"{number:04}.dcm")
        step.add(images)
        sent = client.store(images)
        check(all(one.status == 0 for one in sent), "not all images were taken")
        say("stored", f"{len(sent)} images, {sum(path.stat().st_size for path in images.iterdir()) >> 20} MB")
    say("MPPS", f"{step.status} {step.uid}")

    outcomes = client.commit(images)
    check(all(one.committed for one in outcomes), "not all images are safe")
    say("committed", f"{len(outcomes)} images: the scanner may delete its own")

    [study] = client.find(
        AccessionNumber=item.AccessionNumber,
        StudyInstanceUID=None,
        PatientName=None,
        NumberOfStudyRelatedInstances=None,
    )
    check(int(study.NumberOfStudyRelatedInstances) == IMAGES, "not all images are found")
    say("found", f"{study.PatientName}, {study.NumberOfStudyRelatedInstances} images")

    received = client.get(folder / "doctor", StudyInstanceUID=study.StudyInstanceUID)
    check(len(received) == IMAGES and not any(one.error for one in received), "not all images came back")
    acquired, returned = (
        {str(image.SOPInstanceUID): bytes(image.PixelData) for image in map(read, paths)}
        for paths in (images.iterdir(), [one.path for one in received if one.path])
    )
    check(acquired == returned, "an image came back changed")
    say("retrieved", f"{len(received)} images, pixel for pixel what was acquired")

    left = list(client.worklist(ScheduledStationAETitle=station, ScheduledProcedureStepStartDate=today))
    check(len(left) == len(items) - 1, "the step is still on the worklist")
    say("worklist", f"{len(left)} steps left")


def check(holds: bool, otherwise: str) -> None:
    """End with a message if something is not as it should be."""
    if not holds:
        raise SystemExit(f"worked_day: {otherwise}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--host", help="of a PACS; default: one of its own")
    parser.add_argument("--port", type=int, default=104)
    parser.add_argument("--aec", default="PACSCORE", help="AE title of the PACS")
    parser.add_argument("--station", default="CT1", help="AE title of the modality")
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="worked-day-")))
        host, port = given.host, given.port
        if host is None:
            host, port = "127.0.0.1", stack.enter_context(server(folder))
            say("serving", f"{given.aec} on {host}:{port}")
            schedule(folder / "archive", given.station)
        day(Client(host, port, aec=given.aec, aet=given.station), given.station, folder)


if __name__ == "__main__":
    main()
