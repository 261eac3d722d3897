"""Negotiation of presentation contexts and roles; pynetdicom is the oracle."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import (
    AllStoragePresentationContexts,
    PresentationContext,
    build_context,
    negotiate_as_acceptor,
    negotiate_unrestricted,
)

from pacs_core._ext import associate
from pacs_core._ext.associate import Supported

CT = "1.2.840.10008.5.1.4.1.1.2"
VERIFICATION = "1.2.840.10008.1.1"
IMPLICIT = "1.2.840.10008.1.2"
SYNTAXES = [
    IMPLICIT,
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.5",
]
CLASSES = [
    CT,
    VERIFICATION,
    "1.2.840.10008.5.1.4.1.1.4",
    "1.2.840.10008.5.1.4.1.2.1.1",
    "1.2.826.0.1.3680043.2",
]

flags = st.booleans()
roles = st.sampled_from([None, False, True])
proposals = st.lists(
    st.tuples(
        st.sampled_from(CLASSES), st.lists(st.sampled_from(SYNTAXES), min_size=1, max_size=5, unique=True)
    ),
    min_size=1,
    max_size=12,
)
offers = st.lists(
    st.tuples(
        st.sampled_from(CLASSES),
        st.lists(st.sampled_from(SYNTAXES), min_size=1, max_size=5, unique=True),
        roles,
        roles,
    ),
    max_size=5,
    unique_by=lambda each: each[0],
)
selections = st.dictionaries(st.sampled_from(CLASSES), st.tuples(flags, flags), max_size=5)


def proposed(proposal: list[tuple[str, list[str]]], roles: dict[str, tuple[bool, bool]]) -> associate.Request:
    contexts = [(2 * n + 1, uid, syntaxes) for n, (uid, syntaxes) in enumerate(proposal)]
    return associate.decode_request(
        associate.encode_request(
            called_ae_title="CALLED",
            calling_ae_title="CALLING",
            contexts=contexts,
            maximum_length=16384,
            implementation_class_uid="1.2.3",
            implementation_version_name="THEIRS",
            roles=roles,
        )
    )


def as_oracle(
    proposal: list[tuple[str, list[str]]], offer: list[tuple[str, list[str], bool | None, bool | None]]
) -> tuple[list[PresentationContext], list[PresentationContext]]:
    asked = []
    for n, (uid, syntaxes) in enumerate(proposal):
        asked.append(build_context(uid, syntaxes))
        asked[-1].context_id = 2 * n + 1
    held = []
    for uid, syntaxes, scu, scp in offer:
        held.append(build_context(uid, syntaxes))
        held[-1].scu_role, held[-1].scp_role = scu, scp
    return asked, held


def roles_of(items: list[SCP_SCU_RoleSelectionNegotiation]) -> dict[str, tuple[bool, bool]]:
    return {str(each.sop_class_uid): (bool(each.scu_role), bool(each.scp_role)) for each in items}


@settings(deadline=None, max_examples=300)
@given(proposals, offers, selections)
def test_negotiation_is_pynetdicoms(proposal: Any, offer: Any, selected: Any) -> None:
    """CONFORMANCE 5: our order of preference is the one pynetdicom has."""
    got = associate.negotiate(Supported(offer, prefer_ours=True), proposed(proposal, selected))
    asked, held = as_oracle(proposal, offer)
    contexts, answered = negotiate_as_acceptor(asked, held, selected)
    assert [(ident, uid, result, syntax) for ident, uid, result, syntax, _, _ in got.results] == [
        (cx.context_id, cx.abstract_syntax, cx.result, cx.transfer_syntax[0]) for cx in contexts
    ]
    assert [each[4:] for each in got.results if each[2] == 0] == [
        (cx.as_scu, cx.as_scp) for cx in contexts if cx.result == 0
    ]
    assert got.roles == roles_of(answered)


@settings(deadline=None)
@given(proposals, offers, selections)
def test_requestors_order_changes_the_transfer_syntax_alone(proposal: Any, offer: Any, selected: Any) -> None:
    request = proposed(proposal, selected)
    ours = associate.negotiate(Supported(offer, prefer_ours=True), request)
    theirs = associate.negotiate(Supported(offer), request)
    assert theirs.roles == ours.roles
    held = {uid: syntaxes for uid, syntaxes, _, _ in offer}
    for mine, other, (uid, syntaxes) in zip(ours.results, theirs.results, proposal, strict=True):
        assert mine[:3] + mine[4:] == other[:3] + other[4:]
        common = [syntax for syntax in syntaxes if syntax in held.get(uid, ())]
        assert other[3] == (common or syntaxes)[0]


def test_unknown_storage_is_accepted_as_pynetdicom_does_unrestricted() -> None:
    unknown = ["1.2.826.0.1.3680043.2.1143.7", "1.2.840.10008.5.1.4.1.1.999.1", "1.2.840.113619.4.30"]
    classes = (
        [str(cx.abstract_syntax) for cx in AllStoragePresentationContexts[:100]] + unknown + [VERIFICATION]
    )
    proposal = [(uid, ["1.2.840.10008.1.2.4.999", IMPLICIT]) for uid in classes]
    offer: list[tuple[str, list[str], bool | None, bool | None]] = [(VERIFICATION, [IMPLICIT], None, None)]
    got = associate.negotiate(
        Supported(offer, accept_unknown_storage=True, accept_unknown_transfer_syntaxes=True),
        proposed(proposal, {}),
    )
    contexts, _ = negotiate_unrestricted(*as_oracle(proposal, offer))
    assert [(ident, uid, result, syntax) for ident, uid, result, syntax, _, _ in got.results] == [
        (cx.context_id, cx.abstract_syntax, cx.result, cx.transfer_syntax[0]) for cx in contexts
    ]
    # Nobody asked for a role: the requestor is SCU, we are SCP, of storage too.
    assert {each[4:] for each in got.results} == {(False, True)}


@pytest.mark.parametrize("uid", ["1.2.840.10008.5.1.4.1.1.201.6", "1.2.840.10008.5.1.4.1.2.2.1"])
def test_what_does_not_store_is_no_unknown_storage(uid: str) -> None:
    supported = Supported([(CT, [IMPLICIT], None, None)], accept_unknown_storage=True)
    answer = associate.negotiate(supported, proposed([(uid, [IMPLICIT])], {}))
    assert answer.results == [(1, uid, 3, IMPLICIT, False, False)]


def test_a_very_long_proposal_costs_no_more_than_reading_it() -> None:
    many = [f"1.2.3.{n}" for n in range(4000)] + [IMPLICIT]
    supported = Supported(
        [(CT, [f"1.2.4.{n}" for n in range(200)] + [IMPLICIT], None, None)], prefer_ours=True
    )
    answer = associate.negotiate(supported, proposed([(CT, many)], {}))
    assert answer.results == [(1, CT, 0, IMPLICIT, False, True)]


def test_every_storage_class_of_pynetdicom_counts_as_storage() -> None:
    supported = Supported([(VERIFICATION, [IMPLICIT], None, None)], accept_unknown_storage=True)
    for cx in AllStoragePresentationContexts:
        answer = associate.negotiate(supported, proposed([(str(cx.abstract_syntax), [IMPLICIT])], {}))
        assert answer.results[0][2] == 0, cx.abstract_syntax


def test_unknown_transfer_syntaxes_are_for_storage_only() -> None:
    supported = Supported(
        [(CT, [IMPLICIT], None, None), (VERIFICATION, [IMPLICIT], None, None)],
        accept_unknown_transfer_syntaxes=True,
    )
    odd = "1.2.840.113619.5.2"
    answer = associate.negotiate(supported, proposed([(CT, [odd]), (VERIFICATION, [odd])], {}))
    assert [each[2:4] for each in answer.results] == [(0, odd), (4, odd)]
    preferring = Supported(
        [(CT, [IMPLICIT], None, None)], prefer_ours=True, accept_unknown_transfer_syntaxes=True
    )
    answer = associate.negotiate(preferring, proposed([(CT, [odd, IMPLICIT]), (CT, [odd])], {}))
    assert [each[3] for each in answer.results] == [IMPLICIT, odd]


def test_roles_of_unknown_storage_are_answered_as_asked() -> None:
    supported = Supported([(VERIFICATION, [IMPLICIT], None, None)], accept_unknown_storage=True)
    answer = associate.negotiate(supported, proposed([(CT, [IMPLICIT])], {CT: (False, True)}))
    assert answer.results == [(1, CT, 0, IMPLICIT, True, False)]
    assert answer.roles == {CT: (False, True)}


def test_supported_refuses_what_is_no_uid() -> None:
    with pytest.raises(ValueError, match="abstract syntax: not a UID"):
        Supported([("CT", [IMPLICIT], None, None)])
    with pytest.raises(ValueError, match="transfer syntax: not a UID"):
        Supported([(CT, ["1.2.840 "], None, None)])
