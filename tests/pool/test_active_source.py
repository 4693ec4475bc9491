"""Active source: the log line of an endpoint that is not AWS's own."""

from __future__ import annotations

import logging

import pytest

from asyncauth import AsyncAuthError, Keys, SessionPool

pytestmark = [pytest.mark.anyio, pytest.mark.botocore, pytest.mark.usefixtures("short_back_off")]

MARKED = "MARKER0123456789"


@pytest.mark.parametrize("url", [f"http://user:{MARKED}@127.0.0.1:9", f"http://127.0.0.1:9/?key={MARKED}"])
@pytest.mark.parametrize("account", ["arn:aws:iam::123456789012:role/audit", "arn:aws-cn:iam::123456789012:role/audit"])
async def test_the_log_names_an_endpoint_without_its_secrets(
    url: str, account: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the line of the pool nor those of botocore at DEBUG hold the user, the password or the query."""
    caplog.set_level(logging.DEBUG)
    async with SessionPool(keys=Keys("AKIAIOSFODNN7EXAMPLE", "x" * 40), endpoint_url=url) as pool:
        with pytest.raises(AsyncAuthError) as failed:
            await pool.session(account)

    [line] = [each.getMessage() for each in caplog.records if each.name == "asyncauth.sts"]
    assert "127.0.0.1:9" in line
    assert MARKED not in caplog.text
    assert MARKED not in str(failed.value)
