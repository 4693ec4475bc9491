"""Identity of a client, in the form in which botocore requests credentials."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from asyncauth._errors import PoolClosed
from asyncauth._models.identity import CredentialsDue, permit_holder
from asyncauth._runtime.loop_guard import EventLoopGuard

if TYPE_CHECKING:
    from asyncauth._models import Credentials, Identity


class Signing:
    """The access key that one API call was signed with, so that exactly this key is rejected if the service reports
    expiry."""

    __slots__ = ("access_key", "identity")

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.access_key: str | None = None


#: The call that the current task makes. It reports which key signed; it never selects the identity that signs.
current_signing: Final[ContextVar[Signing | None]] = ContextVar("asyncauth_signing", default=None)


class FactoryState(EventLoopGuard):
    """Whether a factory and its clients can be used: until it is closed, on the event loop that made it."""

    __slots__ = ("closed",)

    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def check(self, account_id: str | None) -> None:
        """Raise the reason why a client cannot be used, if there is one.

        Raises:
            PoolClosed: the factory is closed.
            ConfigurationError: another event loop is running.
        """
        if self.closed:
            whose = f"a client of account {account_id}" if account_id else "a client"
            raise PoolClosed(f"{whose} was used after its pool was closed; keep the pool open", account=account_id)
        self.check_loop()


class BoundCredentials:
    """Identity with the interface that botocore's signers and endpoint rules use."""

    __slots__ = ("_factory_state", "_identity")

    method: Final = "asyncauth"

    def __init__(self, identity: Identity, state: FactoryState) -> None:
        self._identity = identity
        self._factory_state = state

    async def get_frozen_credentials(self) -> Credentials:
        """Return the credentials to sign with now."""
        identity = self._identity
        if self._factory_state.closed:
            self._factory_state.check(identity.account_id)
        if permit_holder.get() is None:
            frozen = await identity.get_frozen_credentials()
        else:
            held = identity.peek()
            if held is None:
                raise CredentialsDue
            frozen = held
        signing = current_signing.get()
        if signing is not None and signing.identity is identity:
            signing.access_key = frozen.access_key
        return frozen

    async def get_account_id(self) -> str | None:
        """Return the account id, for endpoints that contain it; None if unknown."""
        identity = self._identity
        if identity.account_id is not None:
            return identity.account_id
        return getattr(await identity.get_frozen_credentials(), "account_id", None)

    def get_deferred_property(self, name: str) -> Any:
        """Return the coroutine function that returns the account id. botocore's interface for lazy properties."""
        return getattr(self, f"get_{name}")

    def __repr__(self) -> str:
        return f"<BoundCredentials of {self._identity.account_id or 'a source'}>"


class PlaceholderCredentials:
    """Credentials of a template; they never sign."""

    __slots__ = ()

    method: Final = "asyncauth"

    async def get_frozen_credentials(self) -> Any:
        raise RuntimeError("the client of a template never signs")

    async def get_account_id(self) -> None:
        raise RuntimeError("the client of a template never signs")

    def get_deferred_property(self, _: str) -> Any:
        return self.get_account_id
