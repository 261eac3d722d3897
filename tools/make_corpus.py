"""Made-up instances of many kinds, valid and varied, in any number: files, or straight into an archive.

The same seed and options make the same data sets, whatever the number of jobs. See tools/corpus.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import click
from corpus.instances import Options
from corpus.making import make
from corpus.modalities import HUGE_FRAME
from corpus.plan import DAY, KINDS, Plan
from corpus.sinks import Folder, IntoArchive, Made, Sink

from pacs_core.cli.progress import Progress
from pacs_core.errors import PacsError

_LONGEST = 0xFFFFFFFE
"""Of a value (PS3.5 7.1.1); 4G is taken for this."""
_THREADS = 128
"""Of each job that wait for an archive."""


def _size(value: str | int) -> int:
    """A number of bytes such as 512M or 4G."""
    found = re.fullmatch(r"(\d+)([KMG]?)", str(value), re.IGNORECASE)
    if found is None:
        raise click.BadParameter(f"{value}: expected a number of bytes, such as 512M or 4G")
    return int(found[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[found[2].upper()]


def _counts(function: Callable[..., None]) -> Callable[..., None]:
    """One option for each kind."""
    for kind, what in reversed(_HELP.items()):
        name = "--radiographs" if kind == "radiograph" else f"--{kind}"
        function = click.option(name, kind, type=click.IntRange(0), metavar="N", help=what)(function)
    return function


_HELP = {
    "ct": "CT images of 0.5 MB.",
    "mr": "MR images of 0.13 MB.",
    "radiograph": "CR and DX images of 10 MB.",
    "multiframe": "Ultrasound loops of 18 MB, Enhanced MR of 8 MB.",
    "tiny": "Secondary captures and text reports of 2 KB.",
    "huge": "Multi-frame secondary captures of --huge-size.",
}


def _sink(out: Path | None, archive: Path | None, add: bool) -> Callable[[], Sink]:
    """How each process opens what is written to."""
    if archive is not None and out is None:
        return partial(IntoArchive, archive, _THREADS)
    if out is None or archive is not None:
        raise click.UsageError("where to: a folder OUT, or --archive DIR")
    if out.exists() and not out.is_dir():
        raise click.UsageError(f"{out} is no folder")
    if not add and out.exists() and any(out.iterdir()):
        raise click.UsageError(f"{out} is not empty: name another folder, or --add to what is in it")
    return partial(Folder, out)


@click.command(context_settings={"show_default": True})
@click.argument("out", required=False, type=click.Path(path_type=Path))
@_counts
@click.option("--huge-size", default="4G", type=_size, metavar="SIZE", help="Of the pixels of a huge one.")
@click.option("--studies", type=click.IntRange(1), metavar="N", help="[default: as many as usual]")
@click.option("--patients", type=click.IntRange(1), metavar="N", help="[default: 7 for 10 studies]")
@click.option(
    "--other-syntaxes",
    default=10,
    type=click.IntRange(0, 100),
    metavar="PERCENT",
    help="Series in Implicit VR, Deflated, RLE or JPEG 2000 Lossless; others are Explicit VR Little Endian.",
)
@click.option("--seed", default=1, help="Another one makes other instances.")
@click.option(
    "--jobs", "-j", default=os.cpu_count() or 1, type=click.IntRange(1, 256), metavar="N", help="Processes."
)
@click.option(
    "--archive", type=click.Path(path_type=Path), metavar="DIR", help="Into this archive; there are no files."
)
@click.option("--add", is_flag=True, help="Write beside what there is in OUT.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def main(
    out: Path | None,
    huge_size: int,
    studies: int | None,
    patients: int | None,
    other_syntaxes: int,
    seed: int,
    jobs: int,
    archive: Path | None,
    add: bool,
    as_json: bool,
    **counts: int | None,
) -> None:
    """Make DICOM files in OUT, in folders of patient, study and series, or fill an archive.

    With no number of anything: a quiet day of a small hospital, about 700 MB. Names are in the scripts and
    character sets of ten hospitals. The same seed and options make the same data sets.
    """
    open_sink = _sink(out, archive, add)
    if huge_size < HUGE_FRAME.frame_bytes or huge_size > 1 << 32:
        raise click.UsageError(f"--huge-size: from {HUGE_FRAME.frame_bytes >> 10}K, a frame, to 4G")
    asked = {kind: counts[kind] or 0 for kind in KINDS}
    if not any(asked.values()):
        asked = DAY
    plan = Plan.of(seed, asked, studies, patients)
    options = Options(seed, other_syntaxes / 100, min(huge_size, _LONGEST))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # it ends in order, as by an interrupt
    made, began, stopped = Made(), time.perf_counter(), False
    try:
        with Progress("make", total=plan.instances, unit="instance", quiet=as_json) as bar:

            def tell(some: Made) -> None:
                made.add(some)
                bar.advance(some.instances + some.held)

            make(plan, options, open_sink, jobs, tell)
    except KeyboardInterrupt:
        stopped = True
    except (OSError, PacsError, BrokenProcessPool) as exc:
        raise click.ClickException(str(exc)) from exc
    seconds = time.perf_counter() - began
    report = {
        "instances": made.instances,
        "held": made.held,
        "bytes": made.bytes,
        "studies": sum(plan.studies.values()),
        "patients": plan.patients,
        "seconds": round(seconds, 3),
        "instances_per_second": round(made.instances / seconds, 1),
        "megabytes_per_second": round(made.bytes / seconds / 1e6, 1),
        "stopped": stopped,
    }
    if as_json:
        click.echo(json.dumps(report))
    else:
        click.echo(
            f"{made.instances:,} instances of {report['studies']:,} studies and {plan.patients:,} patients, "
            f"{made.bytes / 1e6:,.0f} MB in {seconds:.1f} s: {report['instances_per_second']:,} instances/s, "
            f"{report['megabytes_per_second']:,} MB/s"
            + (f"; {made.held:,} were held already" if made.held else "")
            + ("; stopped before the end" if stopped else "")
        )
    sys.exit(130 if stopped else 0)


if __name__ == "__main__":
    main()
