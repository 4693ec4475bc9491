"""Web identity: one passing failure of STS to fetch the provider's key is retried, and a second one is not."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.abc import SocketAttribute

from asyncauth import SessionPool, SourceError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from anyio.abc import SocketStream

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

NAMESPACE = "https://sts.amazonaws.com/doc/2011-06-15/"
GRANTED = (
    f'<AssumeRoleWithWebIdentityResponse xmlns="{NAMESPACE}"><AssumeRoleWithWebIdentityResult><Credentials>'
    "<AccessKeyId>ASIAIOSFODNN7EXAMPLE</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>"
    "<Expiration>2999-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>"
    "</AssumeRoleWithWebIdentityResponse>"
)


def refused(message: str) -> str:
    error = f"<Error><Type>Sender</Type><Code>InvalidIdentityToken</Code><Message>{message}</Message></Error>"
    return f'<ErrorResponse xmlns="{NAMESPACE}">{error}</ErrorResponse>'


@asynccontextmanager
async def sts(monkeypatch: pytest.MonkeyPatch, home: Path, refusals: int, message: str) -> AsyncIterator[list[str]]:
    """Run an STS that refuses so many web identities, and set the variables of a pod; collects its answers."""
    answers: list[str] = []

    async def answer(stream: SocketStream) -> None:
        async with stream:
            await stream.receive()
            answers.append("refused" if len(answers) < refusals else "granted")
            body = refused(message) if answers[-1] == "refused" else GRANTED
            status = 400 if answers[-1] == "refused" else 200
            head = f"HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
            await stream.send((head + body).encode())

    (home / "token").write_text("header.payload.signature")
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/pod")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(home / "token"))
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, answer)
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}")
        yield answers
        group.cancel_scope.cancel()


PASSING = "Couldn't retrieve verification key from your identity provider, please reference documentation"


async def test_one_failure_to_fetch_the_key_is_retried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The pool gets its credentials with the second request."""
    async with sts(monkeypatch, tmp_path, 1, PASSING) as answers, SessionPool() as pool:
        await pool._open_resources().get_source("aws")

    assert answers == ["refused", "granted"]


@pytest.mark.parametrize(("message", "requests"), [(PASSING, 2), ("Incorrect token audience", 1)])
async def test_other_refusals_are_final(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, message: str, requests: int
) -> None:
    """A second failure of that kind, and a token that is refused, are errors of the source."""
    async with sts(monkeypatch, tmp_path, 99, message) as answers, SessionPool() as pool:
        with pytest.raises(SourceError, match="InvalidIdentityToken"):
            await pool.source_session()

    assert answers == ["refused"] * requests
