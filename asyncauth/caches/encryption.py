"""Encryption of cache entries with AES-GCM, by a given key or one in the system's keyring."""

from __future__ import annotations

import base64
import secrets
from typing import Final

from asyncauth._errors import ConfigurationError

__all__ = ["EntryCipher"]

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_SERVICE: Final = "asyncauth"
_USER: Final = "token-cache"


class EntryCipher:
    """Cipher of entries. An entry is bound to its name, so one cannot be put in the place of another.

    Args:
        key: 32 bytes.

    Raises:
        ConfigurationError: the key has another length, or the extra `keyring` is not installed.

    Example:
        cipher = EntryCipher(secrets.token_bytes(32))
    """

    def __init__(self, key: bytes) -> None:
        if not isinstance(key, bytes) or len(key) != _KEY_BYTES:
            raise ConfigurationError(f"encryption_key must be {_KEY_BYTES} bytes, or 'keyring'")
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError:
            raise ConfigurationError("encryption of tokens needs an extra: pip install 'asyncauth[keyring]'") from None
        self._cipher = AESGCM(key)

    @classmethod
    def of(cls, key: bytes | str) -> EntryCipher:
        """Return the cipher of a key; of the key in the system's keyring for `"keyring"`, which is made if missing."""
        return cls(_keyring_key() if key == "keyring" else key)  # type: ignore[arg-type]  # checked in __init__

    def encrypt(self, content: bytes, name: str) -> bytes:
        """Return the encrypted content of the entry with this name."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, content, name.encode())

    def decrypt(self, content: bytes, name: str) -> bytes | None:
        """Return the content of the entry with this name; None if another key or name encrypted it."""
        from cryptography.exceptions import InvalidTag

        try:
            return self._cipher.decrypt(content[:_NONCE_BYTES], content[_NONCE_BYTES:], name.encode())
        except (InvalidTag, ValueError):
            return None


def _keyring_key() -> bytes:
    try:
        import keyring
        import keyring.errors
    except ImportError:
        raise ConfigurationError("encryption_key='keyring' needs an extra: pip install 'asyncauth[keyring]'") from None
    try:
        stored = keyring.get_password(_SERVICE, _USER)
        if stored is None:
            stored = base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()
            keyring.set_password(_SERVICE, _USER, stored)
        return base64.b64decode(stored, validate=True)
    except (keyring.errors.KeyringError, ValueError) as error:
        raise ConfigurationError(f"the system's keyring has no usable key ({type(error).__name__})") from None
