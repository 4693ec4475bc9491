"""STS responses that cannot be read: an error of asyncauth without a byte of the response, repeated like a lost one."""

from __future__ import annotations

import gc
import logging
import traceback
import types
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from aiohttp import web
from botocore.exceptions import ClientError
from botocore.session import Session
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncauth import AssumeRoleError, AsyncAuthError, Keys, Role, SessionPool, SourceError
from asyncauth._clients.parsing.factory import fast_parser_factory
from asyncauth._credentials.sts import assume_role, get_session_token
from asyncauth._credentials.sts_errors import UNREADABLE, is_worth_repeating
from asyncauth._models import Account
from asyncauth._runtime.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.botocore

ACCOUNTS = [Account("123456789012"), Account("123456789012", partition="aws-cn")]
PARTS = ("ASIAMARKEDKEYID00000", "marked-secret-access-key", "marked-session-token")
MODEL = Session().get_service_model("sts")


def body(operation: str, partition: str = "aws", **replaced: str) -> str:
    """Return STS's response to AssumeRole or GetSessionToken."""
    key_id, secret, token = PARTS
    parts = {
        "AccessKeyId": key_id,
        "SecretAccessKey": secret,
        "SessionToken": token,
        "Expiration": "2999-01-01T00:00:00Z",
    } | replaced
    credentials = "".join(f"<{name}>{value}</{name}>" for name, value in parts.items() if value != "missing")
    user = f"<AssumedRoleUser><Arn>arn:{partition}:sts::123456789012:assumed-role/x/y</Arn></AssumedRoleUser>"
    return (
        f'<{operation}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{operation}Result>'
        f"<Credentials>{credentials}</Credentials>{user if operation == 'AssumeRole' else ''}"
        f"</{operation}Result></{operation}Response>"
    )


class Sts:
    """An STS client whose transport returns one response; botocore's parser and asyncauth's read it."""

    def __init__(self, content: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.meta = types.SimpleNamespace(region_name="us-east-1")
        self._response = {"body": content, "status_code": status, "headers": headers or {}, "context": {}}

    async def _call(self, operation: str) -> Any:
        parser = fast_parser_factory().create_parser("query")
        parsed = await parser.parse(self._response, MODEL.operation_model(operation).output_shape)
        if self._response["status_code"] >= 300:
            raise ClientError(parsed, operation)
        return parsed

    async def assume_role(self, **_: Any) -> Any:
        return await self._call("AssumeRole")

    async def get_session_token(self, **_: Any) -> Any:
        return await self._call("GetSessionToken")


async def failure(sts: Sts, operation: str, account: Account = ACCOUNTS[0]) -> AsyncAuthError:
    role = Role("audit", mfa_serial="arn:aws:iam::1:mfa/x", mfa_token=lambda: "123456")
    try:
        if operation == "AssumeRole":
            await assume_role(sts, role, account, clock=SYSTEM_CLOCK)
        else:
            await get_session_token(sts, role, clock=SYSTEM_CLOCK, label="keys")
    except AsyncAuthError as error:
        return error
    raise AssertionError("the response was accepted")


def shown(error: BaseException) -> str:
    """Return all text that an error holds: messages, chain, notes, frames with their locals, attributes."""
    texts = [str(each) for each in strings_of(error)]
    return "".join([*traceback.TracebackException.from_exception(error, capture_locals=True).format(), *texts])


def strings_of(root: object) -> Iterator[object]:
    """Yield the strings and bytes that an error references outside of its frames."""
    seen, todo = {id(root)}, [root]
    while todo:
        each = todo.pop()
        if isinstance(each, str | bytes):
            yield each
        for other in gc.get_referents(each):
            if id(other) not in seen and not isinstance(
                other, type | types.ModuleType | types.FunctionType | types.TracebackType | types.CodeType
            ):
                seen.add(id(other))
                todo.append(other)


BROKEN: dict[str, Callable[[str], tuple[bytes, int]]] = {
    "cut": lambda text: (text[: int(len(text) * 0.75)].encode(), 200),
    "cut in the secret": lambda text: (text[: text.index("</SecretAccessKey>")].encode(), 200),
    "corrupted": lambda text: (text.replace("</SecretAccessKey>", "\x01").encode(), 200),
    "not UTF-8": lambda text: (text.encode().replace(b"</SecretAccessKey>", b"\xff\xfe</SecretAccessKey>"), 200),
    "a bad expiration": lambda text: (text.replace("2999-01-01T00:00:00Z", PARTS[1]).encode(), 200),
    "an expiration beyond the calendar": lambda text: (
        text.replace("2999-01-01", "0001-01-01").replace(":00Z", ":00+23:00").encode(),
        200,
    ),
    "HTML with 200": lambda text: (f"<html><body>captive portal<br>{text}</body>".encode(), 200),
    "XHTML with 200": lambda text: (f"<html><body>{text}</body></html>".encode(), 200),
    "text with 404": lambda text: (text.encode()[:-20], 404),
    "empty": lambda text: (b"", 200),
    "JSON": lambda text: (b'{"SecretAccessKey": "marked-secret-access-key"}', 200),
    "without a key": lambda text: (text.replace("SecretAccessKey", "Other").encode(), 200),
    "with an empty key": lambda text: (text.replace(PARTS[1], "").encode(), 200),
    "without a body": lambda text: (b"<AssumeRoleResponse/>", 200),
}


@pytest.mark.anyio
@pytest.mark.parametrize("operation", ["AssumeRole", "GetSessionToken"])
@pytest.mark.parametrize("account", ACCOUNTS, ids=lambda account: account.partition)
@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
async def test_an_unreadable_response_is_an_error_without_its_content(
    broken: Callable[[str], tuple[bytes, int]],
    account: Account,
    operation: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Neither message, chain, notes, frames nor attributes hold a byte of it, and another request may succeed."""
    content, status = broken(body(operation, account.partition))

    with caplog.at_level(logging.DEBUG, "asyncauth"):
        error = await failure(Sts(content, status), operation, account)

    assert type(error) is (AssumeRoleError if operation == "AssumeRole" else SourceError)
    assert "marked" not in shown(error).lower()
    assert "captive" not in shown(error)
    assert error.__cause__ is error.__context__ is None
    assert error.code == UNREADABLE
    assert is_worth_repeating(error)
    assert caplog.text == ""


@pytest.mark.anyio
@pytest.mark.parametrize("operation", ["AssumeRole", "GetSessionToken"])
@pytest.mark.parametrize("status", [500, 502, 403])
async def test_keys_under_an_errors_status_are_not_kept(operation: str, status: int) -> None:
    """botocore puts the whole body of an error into ClientError.response; only the error itself stays there."""
    error = await failure(Sts(body(operation).encode(), status), operation)

    assert "marked" not in shown(error).lower()
    assert isinstance(error.__cause__, ClientError)
    assert set(error.__cause__.response) <= {"Error", "ResponseMetadata"}
    assert error.__cause__.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert is_worth_repeating(error) is (status >= 500)


@settings(max_examples=60)
@given(st.data())
def test_no_damage_to_a_response_shows_its_keys(data: st.DataObject) -> None:
    """However a response is cut or overwritten, the keys are read, or an error without them is raised."""
    content = bytearray(body("AssumeRole").encode())
    for position, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=3)
    ):
        content[position] = value
    content = content[: data.draw(st.integers(0, len(content)))]

    async def read() -> AsyncAuthError | None:
        try:
            return await failure(Sts(bytes(content)), "AssumeRole")
        except AssertionError:
            return None

    error = anyio.run(read)

    assert error is None or not any(part[4:] in shown(error) for part in PARTS)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "date",
    ["Thu, 01 Jan 99999999999 00:00:00 GMT", "Thu, 01 Jan 2026 00:00:00 +99999999999999", "nonsense", "", "\x00"],
)
@pytest.mark.parametrize("operation", ["AssumeRole", "GetSessionToken"])
async def test_an_absurd_date_of_a_response_is_ignored(date: str, operation: str) -> None:
    """The lifetime counts from the local clock then."""
    sts = Sts(body(operation).encode(), headers={"Date": date})

    with pytest.raises(AssertionError, match="the response was accepted"):
        await failure(sts, operation)


@pytest.mark.anyio
async def test_errors_that_no_parser_raised_stay_themselves() -> None:
    """A fault of the signer or of the caller is no unreadable response."""

    class Faulty(Sts):
        async def assume_role(self, **_: Any) -> Any:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await failure(Faulty(b""), "AssumeRole")


@pytest.mark.anyio
@pytest.mark.parametrize("broken", ["cut", "HTML with 200", "without a key"])
async def test_an_unreadable_response_is_requested_again(broken: str, caplog: pytest.LogCaptureFixture) -> None:
    """The pool sends AssumeRole three times, and no log at DEBUG holds a byte of the credentials."""
    requests = []

    async def respond(_: web.Request) -> web.Response:
        requests.append(1)
        content, status = BROKEN[broken](body("AssumeRole"))
        if len(requests) == 3:
            content = body("AssumeRole").encode()
        return web.Response(body=content, status=status, content_type="text/xml")

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", respond)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    caplog.set_level(logging.DEBUG)
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with SessionPool("audit", keys=Keys("AKIAIOSFODNN7EXAMPLE", "x" * 40), endpoint_url=url) as pool:
            keys = await (await pool.session(ACCOUNTS[0])).credentials()
    finally:
        await runner.cleanup()

    assert len(requests) == 3
    assert keys.secret_access_key == PARTS[1]
    assert "marked-s" not in caplog.text


@pytest.mark.anyio
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("content", [b"", b"<html>moved</html>", b"no markup"])
async def test_a_redirect_is_final(status: int, content: bytes) -> None:
    """It is no answer of STS and is not followed; the same request would be redirected again, so one is sent."""
    error = await failure(Sts(content, status), "AssumeRole")

    assert error.code == str(status)
    assert "redirect" in str(error)
    assert not is_worth_repeating(error)
