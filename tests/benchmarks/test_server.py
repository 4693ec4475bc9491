"""Server of the benchmark: an answer belongs to its signer, and wrong work is refused."""

from __future__ import annotations

import http.client
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from botocore.credentials import Credentials

from benchmarks import _bodies, fleet
from benchmarks._variants import VARIANTS, Answer
from benchmarks.server import CannedServer
from tests.support.benchmark_requests import describe, keys

if TYPE_CHECKING:
    from pathlib import Path

ONE, OTHER = _bodies.account_ids(2)


def test_answer_belongs_to_signer(server: CannedServer) -> None:
    """The canned server answers for the account that signed, and counts the call and its connection."""
    status, body = describe(server, keys(ONE, ONE, ONE))

    stats = server.stats()
    assert status == 200
    assert body.count(f"<ownerId>{ONE}</ownerId>") == 5
    assert OTHER not in body
    assert (stats["requests"], stats["crossed"], stats["connections"]["ec2"]) == ({"DescribeInstances": 1}, 0, 1)


@pytest.mark.parametrize(
    "credentials",
    [keys(ONE, OTHER, ONE), keys(ONE, ONE, OTHER), keys(OTHER, ONE, ONE)],
    ids=["secret of another", "token of another", "key id of another"],
)
def test_mixed_keys_are_refused(server: CannedServer, credentials: Credentials) -> None:
    """A request that mixes the keys of two accounts is refused, and counted as crossed."""
    status, body = describe(server, credentials)

    assert status == 403
    assert "ownerId" not in body
    assert server.stats()["crossed"] == 1


def test_crossed_identity_is_an_error(monkeypatch: pytest.MonkeyPatch, server: CannedServer) -> None:
    """A variant that calls as the wrong account is an error, never a row in the table."""
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(VARIANTS, "stock", replace(VARIANTS["stock"], has_right_identity=True))

    with pytest.raises(fleet.CrossedIdentity, match=f"the answer is of {_bodies.SOURCE_ACCOUNT}"):
        fleet.measure_variant("stock", 3)


def test_check_requires_every_instance_once() -> None:
    """A missing instance, a second answer of an account, and a mixed answer are errors."""
    check = fleet.Check(5, lambda account: account)
    check(ONE, Answer(frozenset({ONE}), 5))

    with pytest.raises(AssertionError, match="the answer has 4"):
        check(OTHER, Answer(frozenset({OTHER}), 4))
    with pytest.raises(AssertionError, match="twice"):
        check(ONE, Answer(frozenset({ONE}), 5))
    with pytest.raises(fleet.CrossedIdentity):
        check(OTHER, Answer(frozenset({ONE, OTHER}), 5))


def test_tls_counts_handshakes(tmp_path: Path) -> None:
    """Over TLS a connection is counted after its handshake, and only the CA of the run is trusted."""
    pytest.importorskip("cryptography")
    import ssl

    from benchmarks._tls import make_certificates

    certificates = make_certificates(tmp_path)
    with CannedServer(certificates=certificates) as server:
        context = ssl.create_default_context(cafile=str(certificates[0]))
        for _ in range(2):
            connection = http.client.HTTPSConnection("127.0.0.1", server.ports["sts"], timeout=5, context=context)
            connection.request("POST", "/", "Action=GetCallerIdentity")
            connection.getresponse().read()
            connection.close()
        with pytest.raises(ssl.SSLCertVerificationError):
            http.client.HTTPSConnection(
                "127.0.0.1", server.ports["sts"], timeout=5, context=ssl.create_default_context()
            ).connect()

        assert server.stats()["connections"]["sts"] == 2
    assert certificates[2].stat().st_mode & 0o077 == 0
