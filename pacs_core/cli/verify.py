"""`pacs-core verify`: check every instance's bytes against its record, and the other way round."""

from __future__ import annotations

import click

from pacs_core.cli.opening import open_archive
from pacs_core.cli.options import Invocation, common
from pacs_core.cli.progress import Progress


@click.command
@common()
@click.option("--mend", is_flag=True, help="Adopt bytes without a record; remove records without bytes.")
def command(call: Invocation, mend: bool) -> int:
    """Read everything that is held and check it; works while the archive is served.

    Exit code 1 when something is wrong that was not mended.
    """
    from pacs_core.archive.verify import verify

    with (
        open_archive(call, create=False) as archive,
        Progress("verify", total=archive.stats().instances, unit="instance", quiet=call.json) as bar,
    ):
        found = verify(archive, mend=mend, progress=bar.advance)
    lines = [
        f"{finding.where}: {finding.fault.value}"
        + (f" ({finding.detail})" if finding.detail else "")
        + (" [mended]" if finding.mended else "")
        for finding in found.findings
    ]
    call.show(
        {
            "instances": found.instances,
            "bytes": found.bytes,
            "clean": found.clean,
            "findings": [
                {"fault": f.fault.name, "where": f.where, "detail": f.detail, "mended": f.mended}
                for f in found.findings
            ],
        },
        "\n".join([*lines, f"{found.instances:,} instances checked, {len(found.findings)} findings"]),
    )
    return 0 if found.clean else 1
