"""`pacs-core echo`: ask a peer whether it is there."""

from __future__ import annotations

import statistics
import time

import click

from pacs_core.cli.asking import aec_option, host_argument, port_argument
from pacs_core.cli.calling import Tls, client_for, tls_options
from pacs_core.cli.options import Invocation, common


@click.command
@host_argument
@port_argument
@aec_option
@click.option("--count", default=1, show_default=True, type=click.IntRange(1), help="How many times.")
@tls_options
@common(aet="server.aet")
def command(call: Invocation, host: str, port: int, aec: str, count: int, tls: Tls) -> int:
    """C-ECHO to the peer at HOST PORT, over one association."""
    from pacs_core.client import VERIFICATION
    from pacs_core.dicom.uids import IMPLICIT_VR_LITTLE_ENDIAN

    client = client_for(call, host, port, aec, tls)
    begun = time.perf_counter()
    seconds: list[float] = []
    with client.associate([(VERIFICATION, [IMPLICIT_VR_LITTLE_ENDIAN])]) as association:
        associated = time.perf_counter() - begun
        statuses = []
        for _ in range(count):
            begun = time.perf_counter()
            statuses.append(association.echo().status)
            seconds.append(time.perf_counter() - begun)
    bad = sorted({f"{status:04X}" for status in statuses if status})
    median = statistics.median(seconds)
    value = {
        "peer": str(client.remote),
        "count": count,
        "association_ms": round(associated * 1e3, 3),
        "median_ms": round(median * 1e3, 3),
        "max_ms": round(max(seconds) * 1e3, 3),
        "failures": bad,
    }
    many = (
        f", {count} answers, median {median * 1e3:.2f} ms" if count > 1 else f", answer {median * 1e3:.2f} ms"
    )
    text = f"{client.remote}: association {associated * 1e3:.1f} ms{many}"
    call.show(value, f"{text}, with status {', '.join(bad)}" if bad else text)
    return 1 if bad else 0
