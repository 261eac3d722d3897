"""Every setting: key, type, range, unit, default and what it means, once.

Errors, `pacs-core config`, its template and the README's table all read this schema.
"""

import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from msgspec import Meta, Struct, structs

from pacs_core.config.peers import AE_TITLE, AE_TITLE_EXPECTED, Peer, is_loopback

KIB = 1 << 10
MIB = 1 << 20
TIB = 1 << 40

SHORTEST_PDU = 4 * KIB
"""Bytes that `wire.maximum_pdu_length` must at least be, unless 0: shorter ones are all overhead."""


def _about(
    description: str,
    *,
    unit: str | None = None,
    expected: str | None = None,
    path: bool = False,
    **limits: Any,
) -> Meta:
    extra = {"unit": unit, "expected": expected, "path": path}
    return Meta(description=description, extra=extra, **limits)


class ServerSettings(Struct, frozen=True, kw_only=True):
    """Where the server listens and whom it lets in."""

    host: Annotated[str, _about("Address or host name to listen on", min_length=1)] = "127.0.0.1"
    port: Annotated[int, _about("Port to listen on; 0: a free one", ge=0, le=65535)] = 11112
    aet: Annotated[
        str,
        _about(
            "Our AE title",
            expected=AE_TITLE_EXPECTED,
            max_length=16,
            pattern=AE_TITLE,
        ),
    ] = "PACSCORE"
    called_aet: Annotated[
        Literal["auto", "any", "own"],
        _about("AE titles we answer to: any, or only our own; auto: any on loopback, else own"),
    ] = "auto"
    unknown_callers: Annotated[
        Literal["auto", "any", "known"],
        _about(
            "Callers that are no peers: any come in, or only known ones; auto: any on loopback, else known"
        ),
    ] = "auto"
    maximum_associations: Annotated[
        int, _about("Associations at a time; more are rejected (PS3.8 9.3.4: 2/3/2)", ge=1, le=65536)
    ] = 512
    maximum_associations_per_peer: Annotated[
        int, _about("Associations at a time from one address", ge=1, le=65536)
    ] = 256
    drain_seconds: Annotated[
        float,
        _about("How long associations may go on after a stop", unit="seconds", ge=0, le=86400),
    ] = 30.0


class WireSettings(Struct, frozen=True, kw_only=True):
    """How we speak DICOM's upper layer."""

    maximum_pdu_length: Annotated[
        int,
        _about(
            "Longest PDU we ask for, at least 4096; 0: no limit (PS3.8 D.1)", unit="bytes", ge=0, le=2**32 - 1
        ),
    ] = 128 * KIB
    network_timeout: Annotated[
        float,
        _about(
            "An association is aborted when nothing came for this long, or less than 1 KB/s of a message",
            unit="seconds",
            gt=0,
            le=86400,
        ),
    ] = 60.0
    dimse_timeout: Annotated[
        float, _about("Wait for the answer to a request of ours", unit="seconds", gt=0, le=86400)
    ] = 60.0
    artim_timeout: Annotated[
        float,
        _about(
            "Wait for a request, or for the peer's close (PS3.8 9.1.5)",
            unit="seconds",
            gt=0,
            le=3600,
        ),
    ] = 30.0
    spool_at: Annotated[
        int,
        _about("Longer data sets go to disk while they arrive", unit="bytes", ge=64 * KIB, le=2**31),
    ] = 4 * MIB
    memory_budget: Annotated[
        int,
        _about(
            "Received bytes one process holds; beyond it peers are slowed", unit="bytes", ge=MIB, le=2**40
        ),
    ] = 256 * MIB
    prefer_own_transfer_syntax: Annotated[
        bool, _about("Choose among proposed transfer syntaxes by our order, not the requestor's")
    ] = False
    accept_unknown_sop_classes: Annotated[
        bool, _about("Store instances of any SOP class that a peer proposes")
    ] = False
    accept_unknown_transfer_syntaxes: Annotated[
        bool, _about("Store instances of any transfer syntax, where a peer proposes no known one")
    ] = False
    sop_classes: Annotated[
        tuple[str, ...], _about("UIDs of more storage SOP classes to accept, such as private ones")
    ] = ()


class ArchiveSettings(Struct, frozen=True, kw_only=True):
    """What is kept and how."""

    path: Annotated[str, _about("Folder of the archive", path=True, min_length=1)] = "archive"
    small: Annotated[
        int, _about("Instances shorter than this share segment files", unit="bytes", ge=0, le=2**31)
    ] = MIB
    map_size: Annotated[
        int, _about("Address space of the index, the same for every opener", unit="bytes", ge=MIB, le=2**46)
    ] = TIB
    duplicates: Annotated[
        Literal["keep", "replace", "reject"],
        _about("An instance that is held already: keep the first, replace it, or reject the new one"),
    ] = "keep"
    attributes: Annotated[
        tuple[str, ...],
        _about(
            "Attributes that the index holds beyond its own, as PatientBirthName, 00180087 or "
            "STUDY:AdmissionID; `pacs-core reindex --attributes`"
        ),
    ] = ()
    mismatch: Annotated[
        Literal["reject", "warn"],
        _about("A data set that is not what its request says (PS3.4 B.2.3): reject (A900) or warn (B007)"),
    ] = "reject"


class RetrieveSettings(Struct, frozen=True, kw_only=True):
    """How instances go out to others."""

    move_associations: Annotated[
        int,
        _about("Associations at a time for one C-MOVE, to a peer that says no other", ge=1, le=64),
    ] = 1


class CommitmentSettings(Struct, frozen=True, kw_only=True):
    """How long a peer is tried to be told what has become of its storage commitment requests."""

    retry_first: Annotated[
        float, _about("Wait after the first report that failed", unit="seconds", gt=0, le=86400)
    ] = 10.0
    retry_factor: Annotated[float, _about("Each wait is so many times the one before", ge=1, le=100)] = 2.0
    retry_longest: Annotated[float, _about("Longest wait", unit="seconds", gt=0, le=86400)] = 3600.0
    give_up_after: Annotated[
        float,
        _about("A peer that could not be told for so long is not called again", unit="seconds", ge=0, le=3e7),
    ] = 3 * 86400.0
    keep: Annotated[
        float, _about("How long finished transactions are listed", unit="seconds", ge=0, le=3e7)
    ] = 7 * 86400.0


class TlsSettings(Struct, frozen=True, kw_only=True):
    """Secure transport, on a port of its own, once a certificate is given."""

    certificate: Annotated[str, _about("Our certificate chain, PEM; empty: no TLS", path=True)] = ""
    key: Annotated[str, _about("Private key of the certificate, PEM", path=True)] = ""
    ca: Annotated[str, _about("Certificates that may sign a peer's, PEM", path=True)] = ""
    client: Annotated[
        Literal["none", "optional", "required"], _about("Whether callers must show a certificate")
    ] = "required"
    port: Annotated[int, _about("Port to listen on with TLS; 0: a free one", ge=0, le=65535)] = 2762
    only: Annotated[bool, _about("Listen with TLS only, not on server.port")] = False


class LogSettings(Struct, frozen=True, kw_only=True):
    """What is logged, on standard error."""

    level: Annotated[Literal["debug", "info", "warning", "error"], _about("Least level logged")] = "info"
    format: Annotated[Literal["console", "json"], _about("For people, or JSON lines")] = "console"
    patient_data: Annotated[bool, _about("Let values that identify patients into the log")] = False


class PoolSettings(Struct, frozen=True, kw_only=True):
    """Processes."""

    acceptors: Annotated[
        int, _about("Processes that serve associations; 0: by the number of cores", ge=0, le=256)
    ] = 0
    workers: Annotated[
        int,
        _about("Processes for bulk work (import, verify); 0: by the number of cores", ge=0, le=256),
    ] = 0


class Settings(Struct, frozen=True, kw_only=True):
    """All of it."""

    server: ServerSettings = ServerSettings()
    wire: WireSettings = WireSettings()
    archive: ArchiveSettings = ArchiveSettings()
    retrieve: RetrieveSettings = RetrieveSettings()
    commitment: CommitmentSettings = CommitmentSettings()
    tls: TlsSettings = TlsSettings()
    log: LogSettings = LogSettings()
    pool: PoolSettings = PoolSettings()
    peers: tuple[Peer, ...] = ()

    @property
    def called_policy(self) -> Literal["any", "own"]:
        """`server.called_aet` with ``auto`` decided."""
        policy = self.server.called_aet
        if policy == "auto":
            return "any" if is_loopback(self.server.host) else "own"
        return policy

    @property
    def unknown_policy(self) -> Literal["any", "known"]:
        """`server.unknown_callers` with ``auto`` decided."""
        policy = self.server.unknown_callers
        if policy == "auto":
            return "any" if is_loopback(self.server.host) else "known"
        return policy


@dataclass(frozen=True, slots=True)
class Key:
    """One setting of the schema: `name` is ``section.key``."""

    name: str
    type: Any
    default: Any
    description: str
    unit: str | None
    is_path: bool
    expected: str

    @property
    def section(self) -> str:
        """The part before the dot."""
        return self.name.partition(".")[0]

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        section, _, key = self.name.partition(".")
        return f"PACS_CORE_{section.upper()}__{key.upper()}"


SECTIONS: types.MappingProxyType[str, type[Struct]] = types.MappingProxyType(
    {
        "server": ServerSettings,
        "wire": WireSettings,
        "archive": ArchiveSettings,
        "retrieve": RetrieveSettings,
        "commitment": CommitmentSettings,
        "tls": TlsSettings,
        "log": LogSettings,
        "pool": PoolSettings,
    }
)


def expected(annotation: Any) -> str:
    """What a value of this annotated type looks like, for an error message."""
    base, *metas = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
    limits: dict[str, Any] = {}
    said = unit = None
    for meta in metas:
        extra = meta.extra or {}
        said, unit = said or extra.get("expected"), unit or extra.get("unit")
        limits.update(
            (name, getattr(meta, name)) for name in ("ge", "gt", "le") if getattr(meta, name) is not None
        )
    if said:
        return str(said)
    if get_origin(base) is Literal:
        return "one of " + ", ".join(f'"{choice}"' for choice in get_args(base))
    if get_origin(base) is tuple:
        return f"a list of {expected(get_args(base)[0]).removeprefix('a ').replace('text', 'texts')}"
    if isinstance(base, type) and issubclass(base, str) and hasattr(base, "__members__"):
        return "one of " + ", ".join(f'"{choice}"' for choice in base.__members__.values())
    noun = {bool: "true or false", int: "an integer", float: "a number", str: "text"}[base]
    if "gt" in limits:
        noun += f" above {limits['gt']:g}, up to {limits['le']:g}"
    elif "ge" in limits:
        noun += f" from {limits['ge']} to {limits['le']}"
    return f"{noun} ({unit})" if unit else noun


def _keys() -> Iterator[Key]:
    for section, struct in SECTIONS.items():
        for info in structs.fields(struct):
            meta = get_args(info.type)[1]
            yield Key(
                name=f"{section}.{info.name}",
                type=info.type,
                default=info.default,
                description=meta.description,
                unit=meta.extra["unit"],
                is_path=meta.extra["path"],
                expected=expected(info.type),
            )


KEYS: types.MappingProxyType[str, Key] = types.MappingProxyType({key.name: key for key in _keys()})
"""Every setting by its name, in the order of the schema."""
