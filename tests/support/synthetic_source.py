"""Synthetic source of a sync: the pool, its runs, journal and limits are real, and pages come from a function."""

from __future__ import annotations

from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from asyncauth import Account, Keys, SessionPool
from asyncauth._models.kinds import Kind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from asyncauth import AccountLike, AccountSession

#: Kind of which the function returns pages, lists of `{"Id": ..., ...}`.
THING = Kind(
    "test:thing", "test", "ListThings", result="Things[]", id="Id", name_from="Name",
    arn="arn:{partition}:test:{region}:{account}:thing/{id}", columns={"generation": "Generation"},
)  # fmt: skip


class SyntheticPool(SessionPool):
    """Pool whose sessions make no request.

    Args:
        pages: called with account and region of a fetch, returns its pages; what it raises is the error of AWS.
        options: as for `SessionPool`.
    """

    def __init__(self, pages: Callable[[Account, str], AsyncIterator[list[dict[str, Any]]]], **options: Any) -> None:
        super().__init__(keys=Keys("AKIAEXAMPLEEXAMPLE1", "example"), **options)
        self._pages = pages

    async def session(self, account: AccountLike, region_name: str | None = None) -> AccountSession:
        """Return a session of the account and region, which has clients of the synthetic source alone."""
        assert isinstance(account, Account)
        assert region_name is not None
        session: Any = _Session(account, region_name, self._pages)
        return session  # type: ignore[no-any-return]


class _Session:
    def __init__(self, account: Account, region_name: str, pages: Callable[..., Any]) -> None:
        self.account = account
        self.region_name = region_name
        self._pages = pages

    @asynccontextmanager
    async def client(self, service: str, region_name: str | None = None) -> AsyncIterator[Any]:
        yield _Client(lambda: self._pages(self.account, region_name or self.region_name))


class _Client:
    def __init__(self, pages: Callable[[], Any]) -> None:
        self._pages = pages
        shape = SimpleNamespace(members={})
        operation = SimpleNamespace(input_shape=shape)
        self.meta = SimpleNamespace(service_model=SimpleNamespace(operation_model=lambda _: operation))

    def can_paginate(self, _method: str) -> bool:
        return True

    def get_paginator(self, _method: str) -> Any:
        return SimpleNamespace(paginate=self._paginate)

    async def _paginate(self, **_parameters: Any) -> AsyncIterator[dict[str, Any]]:
        async for page in self._pages():
            yield {"Things": page}
