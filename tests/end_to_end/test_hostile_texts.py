"""Hostile texts in a run: terminal escapes, line ends and long texts reach no log, report or display as they are."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncauth import Account, AccountSession, AsyncAuthError, SessionPool
from asyncauth.testing import SimulatedFleet

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

HOSTILE = "\x1b[2J\x1b]0;title\x07\r\nINFO forged line\u202e" + "x" * 100_000
MAX_LINE = 2_500


class Hostile(Exception):
    """Error whose text raises, as its representation does."""

    def __str__(self) -> str:
        raise RuntimeError(HOSTILE)

    __repr__ = __str__


@pytest.fixture(scope="module")
def fleet() -> Iterator[SimulatedFleet]:
    with SimulatedFleet({"aws": 4, "aws-cn": 4}, instances_per_region=0) as running:
        yield running


def assert_harmless(what: str, text: str) -> None:
    """Assert that a text is printable lines of a bounded length, none of them forged."""
    for line in text.split("\n"):
        assert line.isprintable(), f"{what}: {line[:300]!r}"
        assert len(line) <= MAX_LINE, f"{what}: {len(line)} characters: {line[:300]!r}"
        assert not line.startswith("INFO forged"), what


@pytest.mark.parametrize("partition", ["aws", "aws-cn"])
async def test_a_run_shows_hostile_texts_harmless(
    partition: str,
    fleet: SimulatedFleet,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Codes and messages of STS and of a service, an error of a job, a reason, a name and a value, each hostile."""
    for name, value in fleet.environ(partition).items():
        monkeypatch.setenv(name, value)
    accounts = [account for account in fleet.accounts if account.partition == partition]
    named = [Account(each.id, partition=partition, name=HOSTILE, tags={HOSTILE: HOSTILE}) for each in accounts]
    # XML cannot hold an escape; line ends and length it can.
    code = HOSTILE[HOSTILE.index("\r") :].replace("\u202e", "").strip()
    sts = await fleet.fault("error", service="sts", account=accounts[0], code=code, status=400, message=code)
    ec2 = await fleet.fault("error", service="dynamodb", code=HOSTILE[:20_000], status=400, message=HOSTILE[:20_000])

    async def job(session: AccountSession) -> Any:
        index = [each.id for each in accounts].index(session.account.id)
        if index == 1:
            async with session.client("dynamodb") as dynamodb:
                await dynamodb.list_tables()
        if index == 2:
            raise Hostile
        return HOSTILE

    with caplog.at_level(logging.DEBUG, logger="asyncauth"):
        async with SessionPool() as pool:
            report = await pool.map(job, named, progress="lines")
            shown = repr(pool)
    await sts.remove()
    await ec2.remove()

    assert [outcome.status for outcome in report] == ["failed", "failed", "failed", "succeeded"]
    for record in caplog.records:
        if record.name.startswith("asyncauth"):
            assert_harmless(f"log of {record.name}", record.getMessage())
    texts = {
        "summary": report.summary(),
        "repr": repr(report),
        "pool": shown,
        "progress": capsys.readouterr().err,
        "html": report._repr_html_(),
        "rows": "\n".join(
            f"{key}: {value}" for row in report.rows() for key, value in row.items() if key not in ("value", "tags")
        ),
    }
    for outcome in report:
        texts[f"outcome {outcome.status}"] = f"{outcome}\n{outcome!r}"
    for what, text in texts.items():
        assert_harmless(what, text)
    with pytest.raises(ExceptionGroup) as raised:
        report.raise_for_failures()
    assert_harmless("raise_for_failures", str(raised.value))
    json.dumps(list(report.rows()))


@given(text=st.text(st.characters(), min_size=1), fields=st.booleans())
def test_an_error_of_asyncauth_is_printable_lines(text: str, fields: bool) -> None:
    """Whatever a message quotes: no character that a terminal executes, and no more than 2,000 characters."""
    error = AsyncAuthError(text * (40_000 if fields else 1), code=text * 1_000)

    assert len(str(error)) <= 2_000
    assert all(line.isprintable() for line in str(error).split("\n"))
    assert error.code is not None
    assert len(error.code) <= 128
    assert "\x1b" not in error.code


def test_a_long_message_keeps_its_end() -> None:
    """The end of a message is what to do."""
    message = str(AsyncAuthError(f"cannot use {'x' * 100_000}; correct it"))

    assert message.startswith("cannot use xxx")
    assert message.endswith("xxx; correct it")
    assert " ... " in message
