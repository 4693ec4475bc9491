"""Environment of a subprocess: the account's credentials in place of this process's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asyncauth import ConfigurationError

if TYPE_CHECKING:
    from asyncauth import AccountSession

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]


async def test_own_credentials_are_left_out(session: AccountSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that take precedence over the account's credentials, or mix with them, are left out; others stay."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_PROFILE", "prod")
    monkeypatch.setenv("UNRELATED", "stays")

    environ, static = session.environ(), session.environ(static=True)

    assert "AWS_ACCESS_KEY_ID" not in environ
    assert not {"AWS_PROFILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI"} & set(static)
    assert environ["UNRELATED"] == static["UNRELATED"] == "stays"
    keys = await session.credentials()
    assert static["AWS_ACCESS_KEY_ID"] == keys.access_key_id
    assert static["AWS_SESSION_TOKEN"] == keys.session_token
    assert environ["AWS_REGION"] == static["AWS_DEFAULT_REGION"] == session.region_name


async def test_static_needs_good_keys(session: AccountSession) -> None:
    """Without good cached keys `static` raises an error that names the cure: await `credentials()`."""
    session.identity.reject((await session.credentials()).access_key_id)

    with pytest.raises(ConfigurationError, match=r"await session.credentials\(\) first"):
        session.environ(static=True)
