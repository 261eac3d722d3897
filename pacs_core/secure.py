"""TLS as the settings want it: where we accept, and where we call."""

from __future__ import annotations

import ssl

from pacs_core.config import TlsSettings
from pacs_core.errors import ConfigError


def accepting(settings: TlsSettings) -> ssl.SSLContext | None:
    """The server's side of TLS 1.2 or later, None without a certificate.

    Raises
    ------
    ConfigError
        A file can't be read or is not what it should be.
    """
    if not settings.certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _identify(context, settings)
    if settings.client != "none":
        _trust(context, settings)
        context.verify_mode = ssl.CERT_REQUIRED if settings.client == "required" else ssl.CERT_OPTIONAL
    return context


def calling(settings: TlsSettings) -> ssl.SSLContext:
    """The client's side of TLS 1.2 or later, with our certificate if there is one.

    The peer's must be for its host, and signed by one of `tls.ca`; without that, by one of the system's.
    Raises as `accepting`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.ca:
        _trust(context, settings)
    else:
        context.load_default_certs()
    if settings.certificate:
        _identify(context, settings)
    return context


def _identify(context: ssl.SSLContext, settings: TlsSettings) -> None:
    def pass_phrase() -> str:
        # Without this OpenSSL asks on the terminal, which a service does not have.
        raise ConfigError(f"tls.key: {settings.key} is encrypted; a key without a pass phrase is needed")

    try:
        context.load_cert_chain(settings.certificate, settings.key, pass_phrase)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(f"tls.certificate: {settings.certificate} can't be used: {exc}") from exc


def _trust(context: ssl.SSLContext, settings: TlsSettings) -> None:
    try:
        context.load_verify_locations(settings.ca)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(f"tls.ca: {settings.ca} can't be used: {exc}") from exc
