"""`pacs-core commitments`: what peers have asked an archive to commit to, and who is yet to be told."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from pacs_core.cli.opening import open_archive
from pacs_core.cli.options import Invocation, common
from pacs_core.errors import NotFoundError

if TYPE_CHECKING:
    from pacs_core.workflow import Transaction

numbers_argument = click.argument(
    "numbers", nargs=-1, required=True, type=click.IntRange(1), metavar="NUMBER…"
)


@click.group
def command() -> None:
    """Storage commitment: requests of peers, and results that they are yet to be told."""


@command.command("list")
@click.option("--all", "everything", is_flag=True, help="Those that are delivered too.")
@common()
def list_transactions(call: Invocation, everything: bool) -> None:
    """List the transactions that are not finished, and those that were given up."""
    from pacs_core.workflow import Stage

    with open_archive(call, create=False) as archive:
        found = [one for one in archive.commitments if everything or one.stage is not Stage.DELIVERED]
    lines = [_line(one) for one in found] or ["none"]
    call.show([_value(one) for one in found], "\n".join(lines))


@command.command("retry")
@numbers_argument
@common()
def retry(call: Invocation, numbers: tuple[int, ...]) -> None:
    """Have a running server go on with these at once, those that were given up too."""
    with open_archive(call, create=False) as archive:
        count = archive.commitments.retry(numbers)
    _show(call, "retried", count, numbers)


@command.command("forget")
@numbers_argument
@common()
def forget(call: Invocation, numbers: tuple[int, ...]) -> None:
    """Keep nothing of these; their peers are not told."""
    with open_archive(call, create=False) as archive:
        count = archive.commitments.forget(numbers)
    _show(call, "forgotten", count, numbers)


def _show(call: Invocation, what: str, count: int, numbers: tuple[int, ...]) -> None:
    call.show({what: count}, f"{count} {what}")
    if count < len(set(numbers)):
        raise NotFoundError(f"{len(set(numbers)) - count} of these are not there, or are delivered")


def _value(transaction: Transaction) -> dict[str, Any]:
    return {
        "number": transaction.number,
        "stage": str(transaction.stage),
        "aet": transaction.calling,
        "address": transaction.address,
        "transaction_uid": transaction.uid,
        "instances": transaction.instances,
        "failed": transaction.failed,
        "requested": transaction.requested,
        "finished": transaction.finished or None,
        "attempts": transaction.attempts,
        "error": transaction.trouble or None,
    }


def _line(transaction: Transaction) -> str:
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(transaction.requested))
    failed = f" ({transaction.failed:,} failed)" if transaction.failed else ""
    trouble = f"  {transaction.attempts} attempts: {transaction.trouble}" if transaction.trouble else ""
    return (
        f"{transaction.number:>6}  {transaction.stage:<9}  {transaction.calling:<16}  {moment}  "
        f"{transaction.instances:,} instances{failed}{trouble}"
    )
