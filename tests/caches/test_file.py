"""File token cache: each rule of tokens on disk, with real files, processes and users."""

from __future__ import annotations

import json
import os
import secrets
import stat
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncauth import Account, ConfigurationError, Keys, Role, SessionPool
from asyncauth._models import Credentials
from asyncauth.caches import CachedToken, FileTokenCache, MemoryTokenCache, TokenKey, configured_source
from asyncauth.testing import SimulatedFleet

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parent.parent.parent


def key(
    account: str = "123456789012", *, source: object = ("keys", "a"), partition: str = "aws", **role: str
) -> TokenKey:
    return TokenKey(source, "us-east-1", partition, account, Role(**role))  # type: ignore[arg-type]


ALICE, BOB = "arn:aws:iam::111111111111:user/alice", "arn:aws:iam::111111111111:user/bob"


def token(
    secret: str = "s3cret", account: str = "123456789012", seconds: float = 3600.0, caller: str | None = ALICE
) -> CachedToken:
    now = time.time()
    return CachedToken(Credentials("ASIA1234", secret, "session", account), now, now + seconds, caller)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


def entries(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.token"))


class TestEntries:
    async def test_a_token_comes_back_whole(self, directory: Path) -> None:
        """What one cache stores, another one of the same directory loads, with all its fields."""
        stored = token()
        await FileTokenCache(directory).store(key(), stored)

        loaded = await FileTokenCache(directory).load(key())

        assert loaded == stored
        assert loaded is not None
        assert loaded.credentials.account_id == "123456789012"

    @pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
    async def test_modes_do_not_depend_on_the_umask(self, directory: Path, umask: int) -> None:
        """The directory has mode 0700 and each file 0600 under every umask, while a lock is held, too."""
        directory.mkdir(0o700)
        before = os.umask(umask)
        try:
            cache = FileTokenCache(directory)
            async with cache.lock(key()):
                await cache.store(key(), token())
                modes = {stat.S_IMODE(path.stat().st_mode) & ~0o600 for path in directory.iterdir()}
        finally:
            os.umask(before)

        assert modes == {0}
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert stat.S_IMODE(entries(directory)[0].stat().st_mode) == 0o600

    async def test_a_new_directory_is_private_under_umask_000(self, directory: Path) -> None:
        """The directory that the cache makes has mode 0700 even if the umask removes nothing."""
        before = os.umask(0)
        try:
            FileTokenCache(directory)
        finally:
            os.umask(before)

        assert stat.S_IMODE(directory.stat().st_mode) == 0o700

    async def test_an_expired_entry_is_deleted(self, directory: Path) -> None:
        """An entry past its expiry counts as absent, and its file is removed."""
        cache = FileTokenCache(directory)
        await cache.store(key(), replace(token(), expires_at=time.time() - 1, obtained_at=time.time() - 900))

        assert await cache.load(key()) is None
        assert not entries(directory)

    async def test_an_entry_of_another_account_is_deleted(self, directory: Path) -> None:
        """An entry whose account is another one than the key's is neither returned nor kept."""
        cache = FileTokenCache(directory)
        await cache.store(key(), token())
        path = entries(directory)[0]
        path.write_text(json.dumps({**json.loads(path.read_text()), "account": "999999999999"}))

        assert await cache.load(key()) is None
        assert not entries(directory)

    @settings(max_examples=60)
    @given(content=st.binary(max_size=200) | st.sampled_from([b"[]", b"{}", b"null", b'"x"', b"[" * 5000, b"\xff\xfe"]))
    def test_foreign_content_counts_as_absent(self, content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
        """Whatever bytes an entry holds, loading it returns None and raises nothing."""
        directory = tmp_path_factory.mktemp("cache", numbered=True) / "tokens"

        async def scenario() -> CachedToken | None:
            cache = FileTokenCache(directory)
            await cache.store(key(), token())
            entries(directory)[0].write_bytes(content)
            return await cache.load(key())

        assert anyio.run(scenario) is None

    @pytest.mark.parametrize(
        "field", ["access_key_id", "secret_access_key", "session_token", "caller", "obtained_at", "expires_at"]
    )
    @pytest.mark.parametrize("value", [None, [], {}, True, "", float("inf")])
    async def test_a_field_of_another_type_counts_as_absent(self, directory: Path, field: str, value: object) -> None:
        """An entry with a missing field, or one of another type, is not served."""
        cache = FileTokenCache(directory)
        await cache.store(key(), token())
        path = entries(directory)[0]
        path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))

        assert await cache.load(key()) is None

    async def test_every_truncation_counts_as_absent(self, directory: Path) -> None:
        """An entry cut off after any number of bytes is not served."""
        cache = FileTokenCache(directory)
        await cache.store(key(), token())
        path = entries(directory)[0]
        whole = path.read_bytes()

        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            assert await cache.load(key()) is None
            path.touch(0o600)

    async def test_an_entry_that_is_too_large_is_not_read(self, directory: Path) -> None:
        """An entry of more than 64 KiB counts as absent."""
        cache = FileTokenCache(directory)
        await cache.store(key(), token())
        path = entries(directory)[0]
        path.write_bytes(path.read_bytes() + b" " * 70_000)

        assert await cache.load(key()) is None


class TestPlaces:
    async def test_a_directory_that_others_can_read_is_refused(self, directory: Path) -> None:
        """A directory with a bit for group or others is refused, with the reason."""
        directory.mkdir()
        directory.chmod(0o750)

        with pytest.raises(ConfigurationError, match="other users can read it"):
            FileTokenCache(directory)

    async def test_a_directory_behind_a_symbolic_link_is_refused(self, directory: Path, tmp_path: Path) -> None:
        """The cache's directory is no symbolic link, also if it leads to a private directory."""
        (tmp_path / "real").mkdir(0o700)
        directory.symlink_to(tmp_path / "real")

        with pytest.raises(ConfigurationError, match="symbolic link"):
            FileTokenCache(directory)

    async def test_a_directory_replaced_later_is_refused(self, directory: Path, tmp_path: Path) -> None:
        """The check is made for each operation, not only for the first."""
        cache = FileTokenCache(directory)
        directory.rmdir()
        (tmp_path / "real").mkdir(0o700)
        directory.symlink_to(tmp_path / "real")

        with pytest.raises(ConfigurationError, match="refused"):
            await cache.store(key(), token())
        assert not list((tmp_path / "real").iterdir())

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
    async def test_what_another_user_owns_is_refused(self, directory: Path) -> None:
        """A directory of another user is refused; an entry of another user counts as absent."""
        cache = FileTokenCache(directory)
        await cache.store(key(), token())
        os.chown(entries(directory)[0], 65534, 65534)

        assert await cache.load(key()) is None
        os.chown(directory, 65534, 65534)
        with pytest.raises(ConfigurationError, match="belongs to user 65534"):
            FileTokenCache(directory)

    async def test_an_entry_that_others_can_read_is_not_used(self, directory: Path) -> None:
        """An entry with mode 0644 counts as absent: another program has written it."""
        cache = FileTokenCache(directory)
        await cache.store(key(), token())
        entries(directory)[0].chmod(0o644)

        assert await cache.load(key()) is None

    async def test_no_symbolic_link_is_followed(self, directory: Path, tmp_path: Path) -> None:
        """An entry that is a symbolic link is not read; storing replaces the link and leaves its target alone."""
        cache = FileTokenCache(directory)
        await cache.store(key(), token())
        path, target = entries(directory)[0], tmp_path / "target"
        path.rename(target)
        path.symlink_to(target)
        before = target.read_bytes()

        assert await cache.load(key()) is None
        await cache.store(key(), token("other"))
        assert target.read_bytes() == before
        assert not path.is_symlink()

    async def test_a_lock_through_a_symbolic_link_is_refused(self, directory: Path, tmp_path: Path) -> None:
        """A link in the place of a lock file is not followed, so nothing is made elsewhere."""
        cache = FileTokenCache(directory)
        name = cache._name(key())
        (directory / f"{name}.lock").symlink_to(tmp_path / "made")

        with pytest.raises(OSError, match="symbolic links"):
            async with cache.lock(key()):
                pass
        assert not (tmp_path / "made").exists()

    async def test_a_named_pipe_does_not_block(self, directory: Path) -> None:
        """A named pipe in the place of an entry counts as absent, at once."""
        cache = FileTokenCache(directory)
        await cache.store(key(), token())
        path = entries(directory)[0]
        path.unlink()
        os.mkfifo(path, 0o600)

        assert await cache.load(key()) is None

    @settings(max_examples=40)
    @given(part=st.text(max_size=30) | st.sampled_from(["../../../etc/passwd", "/etc/passwd", "a\0b", "..", "\n"]))
    def test_no_part_of_a_key_is_part_of_a_path(self, part: str) -> None:
        """The name of an entry is a digest, whatever text the key has."""
        cache = object.__new__(FileTokenCache)
        cache._configured = None

        name = cache._name(replace(key(), source=("keys", part), endpoint_url=part))

        assert name is not None
        assert len(name) == 64
        assert set(name) <= set("0123456789abcdef")


class TestWriting:
    @pytest.mark.parametrize("step", ["open", "fchmod", "write", "fsync", "rename"])
    async def test_a_process_killed_at_a_step_leaves_the_former_entry(self, directory: Path, step: str) -> None:
        """A process that ends in the middle of a store leaves the former entry complete; its remains are swept."""
        cache = FileTokenCache(directory)
        await cache.store(key(), token("first"))
        program = f"""
            import os, anyio
            from asyncauth.caches import FileTokenCache
            from tests.caches.test_file import key, token
            cache = FileTokenCache({str(directory)!r})
            cache._stores = 1
            step, real = {step!r}, {{name: getattr(os, name) for name in ("open", "fchmod", "fsync", "rename")}}
            def end(*arguments, **options):
                os._exit(9)
            def opened(path, flags, *arguments, **options):
                descriptor = real["open"](path, flags, *arguments, **options)
                if str(path).endswith(".tmp"):
                    if step == "write":
                        real["fsync"](descriptor); os.write(descriptor, b'{{"name": "half'); os._exit(9)
                    os._exit(9)
                return descriptor
            setattr(os, "open" if step == "write" else step, opened if step in ("open", "write") else end)
            anyio.run(cache.store, key(), token("second"))
        """
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, check=False)

        loaded = await FileTokenCache(directory).load(key())

        assert done.returncode == 9
        assert loaded is not None
        assert loaded.credentials.secret_access_key == "first"
        left = list(directory.glob("*.tmp"))
        assert left
        for path in left:
            os.utime(path, (time.time() - 7200,) * 2)
        await FileTokenCache(directory).store(key("210987654321"), token(account="210987654321"))
        assert not list(directory.glob("*.tmp"))

    async def test_a_full_disk_costs_the_cache_and_not_the_run(self, directory: Path) -> None:
        """A write that the kernel refuses raises, leaves the former entry and no temporary file."""
        await FileTokenCache(directory).store(key(), token("first"))
        program = f"""
            import resource, anyio
            from asyncauth.caches import FileTokenCache
            from tests.caches.test_file import key, token
            cache = FileTokenCache({str(directory)!r})
            resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
            try:
                anyio.run(cache.store, key(), token("second"))
            except OSError as error:
                print(type(error).__name__)
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, capture_output=True, text=True, check=True
        )

        loaded = await FileTokenCache(directory).load(key())

        assert done.stdout.strip() == "OSError"
        assert loaded is not None
        assert loaded.credentials.secret_access_key == "first"
        assert not list(directory.glob("*.tmp"))

    async def test_readers_beside_two_writers_see_whole_entries(self, directory: Path) -> None:
        """Two processes that store the same key in a loop never show a reader half an entry."""
        program = textwrap.dedent(
            """
            import sys, anyio
            from asyncauth.caches import FileTokenCache
            from tests.caches.test_file import key, token
            async def main():
                cache = FileTokenCache(sys.argv[1])
                for number in range(60):
                    await cache.store(key(), token(sys.argv[2] * 2000))
            anyio.run(main)
            """
        )
        cache = FileTokenCache(directory)
        await cache.store(key(), token("a" * 2000))
        writers = [
            subprocess.Popen([sys.executable, "-c", program, str(directory), letter], cwd=ROOT) for letter in "ab"
        ]
        seen = set()
        while any(writer.poll() is None for writer in writers):
            loaded = await cache.load(key())
            assert loaded is not None
            seen.add(loaded.credentials.secret_access_key)

        assert [writer.returncode for writer in writers] == [0, 0]
        assert seen <= {"a" * 2000, "b" * 2000}
        assert len(entries(directory)) == 1

    async def test_the_number_of_entries_is_capped(self, directory: Path) -> None:
        """A sweep removes the entries beyond the largest number, the oldest first, and those past every lifetime."""
        cache = FileTokenCache(directory, max_entries=3)
        for number in range(6):
            account = f"{number:012d}"
            await cache.store(key(account), token(account=account))
            os.utime(directory / f"{cache._name(key(account))}.token", (time.time() - 60 + number,) * 2)
        cache._stores = 0
        await cache.store(key("000000000009"), token(account="000000000009"))

        assert len(entries(directory)) == 4
        assert await cache.load(key("000000000000")) is None
        assert await cache.load(key("000000000005")) is not None


class TestLocks:
    async def test_a_lock_excludes_another_process_and_ends_with_it(self, directory: Path) -> None:
        """While a process holds a lock no other gets it; a killed process holds it no longer."""
        program = textwrap.dedent(
            """
            import sys, anyio
            from asyncauth.caches import FileTokenCache
            from tests.caches.test_file import key
            async def main():
                async with FileTokenCache(sys.argv[1]).lock(key()):
                    print("held", flush=True)
                    await anyio.sleep_forever()
            anyio.run(main)
            """
        )
        cache = FileTokenCache(directory)
        holder = subprocess.Popen(
            [sys.executable, "-c", program, str(directory)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline() == "held\n"
            assert cache._try_lock(str(cache._name(key()))) is None
        finally:
            holder.kill()
            holder.wait()
            holder.stdout.close()

        with anyio.fail_after(20):
            async with cache.lock(key()):
                assert cache._try_lock(str(cache._name(key()))) is None

    async def test_locks_exclude_tasks_of_one_process(self, directory: Path) -> None:
        """At most one of fifty tasks holds the lock of a token, over two caches of one directory."""
        caches = [FileTokenCache(directory), FileTokenCache(directory)]
        inside = most = 0

        async def enter(number: int) -> None:
            nonlocal inside, most
            async with caches[number % 2].lock(key()):
                inside += 1
                most = max(most, inside)
                await anyio.lowlevel.checkpoint()
                inside -= 1

        async with anyio.create_task_group() as group:
            for number in range(50):
                group.start_soon(enter, number)

        assert most == 1
        assert not list(directory.glob("*.lock"))

    async def test_a_cancelled_waiter_leaves_the_lock_alone(self, directory: Path) -> None:
        """Cancelling a task that waits for a lock neither releases it nor takes it."""
        cache = FileTokenCache(directory)
        async with cache.lock(key()):
            with anyio.move_on_after(0.05):
                async with cache.lock(key()):
                    pytest.fail("the lock was granted twice")
            assert cache._try_lock(str(cache._name(key()))) is None
        async with cache.lock(key()):
            pass


class TestSources:
    @pytest.mark.parametrize(
        "other",
        [
            key(source=("keys", "b")),
            key(account="210987654321"),
            key(partition="aws-cn"),
            key(name="other-role"),
            key(external_id="7c1e"),
            key(source_identity="alice"),
            replace(key(), endpoint_url="http://127.0.0.1:1"),
            replace(key(), role=Role(tags={"team": "a"})),
            replace(key(), role=Role(via=("arn:aws:iam::111111111111:role/hub",))),
        ],
        ids=str,
    )
    async def test_each_part_of_a_key_makes_another_entry(self, directory: Path, other: TokenKey) -> None:
        """The same role from another source, or with any other argument, never shares an entry."""
        cache = FileTokenCache(directory)
        await cache.store(key(), token())

        assert await cache.load(other) is None
        assert cache._name(other) != cache._name(key())

    async def test_one_configuration_with_two_identities_shares_nothing(self, directory: Path) -> None:
        """An entry under a configured source is absent for a pool whose source resolved to another identity."""
        cache = FileTokenCache(directory, configured="digest")
        await cache.store(key(), token())

        assert await cache.load(key(source=("keys", "b"))) is None

    async def test_a_source_without_a_stable_key_is_not_cached(self, directory: Path) -> None:
        """The token of a callable's keys is not stored: no other process can have the same source."""
        cache = FileTokenCache(directory)
        await cache.store(key(source=("callable", object())), token())

        assert not entries(directory)

    async def test_peek_needs_a_configured_source(self, directory: Path) -> None:
        """Without a digest, as for instance metadata, nothing is served before the source is resolved."""
        for configured, expected in ((None, None), ("digest", "s3cret"), ({"aws": "digest"}, "s3cret"), ({}, None)):
            cache = FileTokenCache(directory, configured=configured)
            await cache.store(key(), token())
            found = cache.peek(Account("123456789012"), Role())

            assert (found and found.credentials.secret_access_key) == expected


class TestCallers:
    @pytest.mark.parametrize("configured", [None, "digest"])
    async def test_a_refresh_by_another_caller_drops_the_entries_of_the_former(
        self, directory: Path, configured: str | None
    ) -> None:
        """Once a token of a source was refreshed by another caller, no token of the former one is served."""
        cache = FileTokenCache(directory, configured=configured)
        other = key("210987654321")
        await cache.store(key(), token())
        await cache.store(other, token("of-bob", "210987654321", caller=BOB))

        assert cache.peek(Account("123456789012"), Role()) is None
        assert await cache.load(key()) is None
        assert len(entries(directory)) == 1
        assert (await cache.load(other)) == replace(token("of-bob", "210987654321", caller=BOB), **times(cache, other))

    async def test_callers_of_different_sources_are_independent(self, directory: Path) -> None:
        """Another source, partition or endpoint has a caller of its own."""
        cache = FileTokenCache(directory)
        others = [key(source=("keys", "b")), key(partition="aws-cn"), replace(key(), endpoint_url="http://127.0.0.1:1")]
        await cache.store(key(), token())
        for other in others:
            await cache.store(other, token(caller=BOB))

        assert await cache.load(key()) is not None
        assert all([await cache.load(other) is not None for other in others])

    async def test_a_token_without_its_caller_is_not_stored(self, directory: Path) -> None:
        """What cannot be compared later is not written."""
        cache = FileTokenCache(directory)
        await cache.store(key(), token(caller=None))

        assert not list(directory.iterdir())

    @pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"caller": 1}'])
    async def test_without_the_file_of_the_caller_entries_are_absent(self, directory: Path, content: bytes) -> None:
        """A file of the caller that is missing, cut off or foreign costs a refresh; nothing unproven is served."""
        cache = FileTokenCache(directory, configured="digest")
        await cache.store(key(), token())
        (path,) = directory.glob("*.caller")
        path.write_bytes(content)

        assert cache.peek(Account("123456789012"), Role()) is None
        assert await cache.load(key()) is None

    async def test_the_file_of_the_caller_is_private_and_written_once(self, directory: Path) -> None:
        """It has mode 0600, and a refresh by the same caller leaves it as it is."""
        cache = FileTokenCache(directory)
        await cache.store(key(), token())
        (path,) = directory.glob("*.caller")
        before = path.stat()
        await cache.store(key(), token("second"))

        assert stat.S_IMODE(before.st_mode) == 0o600
        assert os.path.samestat(before, path.stat())


def times(cache: FileTokenCache, of: TokenKey) -> dict[str, float]:
    """Return the times of an entry, which its test does not know."""
    found = json.loads((cache.directory / f"{cache._name(of)}.token").read_text())
    return {name: found[name] for name in ("obtained_at", "expires_at")}


class TestEncryption:
    async def test_an_encrypted_entry_shows_nothing_and_is_bound_to_its_name(self, directory: Path) -> None:
        """No field is readable; another key, another name or a changed byte makes the entry absent."""
        secret = secrets.token_bytes(32)
        cache = FileTokenCache(directory, encryption_key=secret)
        await cache.store(key(), token("very-secret"))
        await cache.store(key("210987654321"), token("other", "210987654321"))
        path = directory / f"{cache._name(key())}.token"
        content = path.read_bytes()

        assert b"very-secret" not in content
        assert b"ASIA1234" not in content
        assert await cache.load(key()) is not None
        assert await FileTokenCache(directory, encryption_key=secrets.token_bytes(32)).load(key()) is None
        assert await FileTokenCache(directory).load(key()) is None
        other = directory / f"{cache._name(key('210987654321'))}.token"
        other.write_bytes(content)
        assert await cache.load(key("210987654321")) is None

    def test_a_key_of_another_length_is_refused(self, directory: Path) -> None:
        """A key that is no 32 bytes is refused by name."""
        for wrong in (b"short", "text"):
            with pytest.raises(ConfigurationError, match="encryption_key must be 32 bytes"):
                FileTokenCache(directory, encryption_key=wrong)

    async def test_the_keyring_keeps_the_key(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """`"keyring"` makes a key at first use and finds the same one later."""
        import keyring
        from keyring.backend import KeyringBackend

        class InMemory(KeyringBackend):
            priority = 1
            kept: ClassVar[dict[tuple[str, str], str]] = {}

            def get_password(self, service: str, username: str) -> str | None:
                return self.kept.get((service, username))

            def set_password(self, service: str, username: str, password: str) -> None:
                self.kept[service, username] = password

        before = keyring.get_keyring()
        keyring.set_keyring(InMemory())
        try:
            await FileTokenCache(directory, encryption_key="keyring").store(key(), token())
            assert await FileTokenCache(directory, encryption_key="keyring").load(key()) is not None
            assert len(InMemory.kept) == 1
        finally:
            keyring.set_keyring(before)


async def write_program(folder: Path, keys: Keys) -> None:
    """Write a profile `changing`, whose program prints these keys; only what it prints changes later."""
    printed = {"Version": 1, "AccessKeyId": keys.access_key_id, "SecretAccessKey": keys.secret_access_key}
    path = anyio.Path(folder) / "credentials"
    await path.write_text(json.dumps(printed))
    config = anyio.Path(folder) / "aws-config"
    await config.write_text(f"[profile changing]\nregion = us-east-1\ncredential_process = cat {path}\n")


class TestPools:
    @pytest.mark.parametrize("partition", ["aws", "aws-cn"])
    async def test_the_next_pool_assumes_nothing(self, directory: Path, partition: str) -> None:
        """A second pool on the same directory gets the token from its file: one AssumeRole in both partitions."""
        async with SimulatedFleet({partition: 1}) as fleet:
            for _ in range(2):
                async with SessionPool(
                    source=fleet.keys(partition),
                    endpoint_url=fleet.endpoint_url,
                    token_cache=FileTokenCache(directory),
                    region_name=fleet.regions[partition][0],
                ) as pool:
                    await pool.session(fleet.accounts[0])
            counts = await fleet.counts()

        assert counts.calls("sts", "AssumeRole") == 1

    async def test_the_same_role_from_two_sources_is_assumed_twice(self, directory: Path) -> None:
        """Two users that assume one role have an entry each."""
        async with SimulatedFleet(1) as fleet:
            for keys in (fleet.keys(), await fleet.add_identity("second")):
                async with SessionPool(
                    source=keys, endpoint_url=fleet.endpoint_url, token_cache=FileTokenCache(directory)
                ) as pool:
                    await pool.session(fleet.accounts[0])
            counts = await fleet.counts()

        assert counts.calls("sts", "AssumeRole") == 2
        assert len(entries(directory)) == 2

    async def test_one_identity_call_for_all_accounts_and_none_for_a_hit(self, directory: Path) -> None:
        """Tokens of 20 accounts cost 20 AssumeRole and one GetCallerIdentity; the next pool sends no request."""
        async with SimulatedFleet(20) as fleet:
            counts = []
            for _ in range(2):
                async with SessionPool(
                    source=fleet.keys(), endpoint_url=fleet.endpoint_url, token_cache=FileTokenCache(directory)
                ) as pool:
                    coverage = await pool.warm(fleet.accounts)
                    assert len(coverage.reachable) == 20
                counts.append(await fleet.counts())

        calls = [(each.calls("sts", "AssumeRole"), each.calls("sts", "GetCallerIdentity")) for each in counts]
        assert calls == [(20, 1), (20, 1)]

    async def test_a_cache_in_memory_needs_no_identity_call(self) -> None:
        """Without a cache in files GetCallerIdentity is not called."""
        async with SimulatedFleet(1) as fleet:
            async with SessionPool(
                source=fleet.keys(), endpoint_url=fleet.endpoint_url, token_cache=MemoryTokenCache()
            ) as pool:
                await pool.session(fleet.accounts[0])
            counts = await fleet.counts()

        assert (counts.calls("sts", "AssumeRole"), counts.calls("sts", "GetCallerIdentity")) == (1, 0)

    async def test_another_caller_under_the_same_profile_is_noticed_at_a_refresh(
        self, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A profile whose program returns other keys serves no token of the former ones once one was refreshed."""
        async with SimulatedFleet(2) as fleet:
            first, second = fleet.accounts
            await write_program(tmp_path, fleet.keys())
            monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws-config"))

            def cache() -> FileTokenCache:
                return FileTokenCache(directory, configured=configured_source("changing"))

            def pool() -> SessionPool:
                return SessionPool(profile="changing", endpoint_url=fleet.endpoint_url, token_cache=cache())

            async with pool() as former:
                for account in (first, second):
                    await former.session(account)
            await write_program(tmp_path, await fleet.add_identity("second"))
            assert cache().peek(first, Role(), endpoint_url=fleet.endpoint_url) is not None
            async with pool() as other:
                other.invalidate(second)
                await other.session(second)
                assert cache().peek(first, Role(), endpoint_url=fleet.endpoint_url) is None
                assert cache().peek(second, Role(), endpoint_url=fleet.endpoint_url) is not None
                await other.session(first)
            counts = await fleet.counts()

        callers = {json.loads(path.read_text())["caller"].rpartition("/")[2] for path in entries(directory)}
        assert callers == {"second"}
        assert counts.calls("sts", "AssumeRole") == 4

    async def test_a_caller_that_is_not_known_costs_the_cache_and_not_the_run(
        self, directory: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """If GetCallerIdentity fails, the token is used and not stored, and one warning has the reason."""
        async with SimulatedFleet(1) as fleet:
            await fleet.fault(service="sts", action="GetCallerIdentity", status=403, code="AccessDenied")
            async with SessionPool(
                source=fleet.keys(), endpoint_url=fleet.endpoint_url, token_cache=FileTokenCache(directory)
            ) as pool:
                session = await pool.session(fleet.accounts[0])
                assert (await session.credentials()).session_token

        assert not entries(directory)
        assert "the token cache failed (SourceError)" in caplog.text
