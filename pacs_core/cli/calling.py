"""Options of the commands that call a peer: its AE title, TLS; and the client they amount to."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from pacs_core.errors import ConfigError

if TYPE_CHECKING:
    from pacs_core.cli.options import Invocation
    from pacs_core.client import Client

P = ParamSpec("P")
R = TypeVar("R")

_FILE = click.Path(dir_okay=False, readable=True)


@dataclass(frozen=True, slots=True)
class Tls:
    """What was asked for with the options of TLS."""

    on: bool
    ca: str | None
    cert: str | None
    key: str | None
    name: str | None
    insecure: bool

    def context(self) -> ssl.SSLContext | None:
        """The context that the options mean; None without TLS.

        Raises
        ------
        ConfigError
            A file is not what it should be, or options contradict each other.
        """
        if not (self.on or self.ca or self.cert or self.key or self.name or self.insecure):
            return None
        if self.insecure and (self.ca or self.name):
            raise ConfigError("--tls-insecure trusts anybody: --tls-ca and --tls-name say the opposite")
        if self.key and not self.cert:
            raise ConfigError("--tls-key without --tls-cert")
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except (OSError, ssl.SSLError) as exc:
            raise ConfigError(f"--tls-ca {self.ca}: {exc}") from exc
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.cert:
            try:
                context.load_cert_chain(self.cert, self.key)
            except (OSError, ssl.SSLError) as exc:
                raise ConfigError(
                    f"--tls-cert {self.cert}, --tls-key {self.key or self.cert}: {exc}"
                ) from exc
        return context


def tls_options(function: Callable[P, R]) -> Callable[P, R]:
    """Give a command the options of TLS; it is called with `tls`, a `Tls`. Any of them switches it on."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        values: dict[str, Any] = {
            name: kwargs.pop(f"tls_{name}") for name in ("on", "ca", "cert", "key", "name", "insecure")
        }
        kwargs["tls"] = Tls(**values)
        return function(*args, **kwargs)

    decorated: Callable[P, R] = call
    for option in (
        click.option("--tls-insecure", is_flag=True, help="Take any certificate from the peer."),
        click.option("--tls-name", metavar="NAME", help="The peer's certificate is for NAME, not for HOST."),
        click.option("--tls-key", type=_FILE, metavar="FILE", help="Key of our certificate (PEM), if apart."),
        click.option("--tls-cert", type=_FILE, metavar="FILE", help="Our certificate (PEM)."),
        click.option(
            "--tls-ca", type=_FILE, metavar="FILE", help="Who may sign the peer's; default: the system's."
        ),
        click.option("--tls", "tls_on", is_flag=True, help="Speak TLS."),
    ):
        decorated = option(decorated)
    return decorated


def client_for(call: Invocation, host: str, port: int, aec: str, tls: Tls) -> Client:
    """A client with our AE title and the limits of the settings.

    Raises
    ------
    ConfigError
        AE titles that can't be, or see `Tls.context`.
    """
    from pacs_core.client import Client, Timeouts

    wire = call.settings.wire
    if not 0 < len(aec.strip()) <= 16 or not aec.isascii() or not aec.isprintable() or "\\" in aec:
        raise ConfigError(f"--aec {aec!r}: 1 to 16 printable ASCII characters without a backslash")
    return Client(
        host,
        port,
        aec=aec,
        aet=call.settings.server.aet,
        tls=tls.context() or False,
        tls_name=tls.name,
        maximum_pdu=wire.maximum_pdu_length,
        timeouts=Timeouts(acse=wire.artim_timeout, dimse=wire.dimse_timeout, write=wire.network_timeout),
    )
