"""Path of a SQLite store: what is no store of this library is refused and stays as it was."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from asyncauth import ConfigurationError, StoreLocked
from asyncauth.stores import CsvStore, JsonLinesStore, SqliteStore, _lock
from asyncauth.stores._lock import NETWORK_TYPES, file_system_type
from tests.support.stores import KIND, OK, record, rows, scope_of, sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def open_umask() -> Iterator[None]:
    """Let new files have every permission that their creator gives them."""
    before = os.umask(0)
    yield
    os.umask(before)


def text(path: Path) -> None:
    """Write a file that is no database."""
    path.write_text("accounts: 3\n" * 1_000)


def short_text(path: Path) -> None:
    """Write a file that is shorter than a database's header."""
    path.write_text("x")


def other_program(path: Path) -> None:
    """Write a database of another program."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("create table notes (x); insert into notes values (1)")


def other_version(path: Path) -> None:
    """Write a database of another program that has a version of its own."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("create table syncs (x); pragma user_version = 2")


def newer(path: Path) -> None:
    """Write a database of a later version of this library, which does not use a write-ahead log."""
    with closing(sqlite3.connect(path)) as connection:
        for table in ("syncs", "scopes", "resources", "raw", "tomorrow"):
            connection.execute(f"create table {table} (x)")
        connection.execute("pragma user_version = 99")


def content(path: Path) -> bytes | None:
    """Return the bytes of a file; None for what is no file."""
    return path.read_bytes() if path.is_file() else None


def files(folder: Path) -> set[str]:
    """Return the names in a directory."""
    return {each.name for each in folder.iterdir()}


def link_to_itself(path: Path) -> None:
    """Make a link that has no end."""
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Path.mkdir, "cannot be written: Is a directory"),
        (text, "cannot be read: file is not a database"),
        (short_text, "cannot be read: file is not a database"),
        (other_program, "is a SQLite database of another program"),
        (other_version, "is a SQLite database of another program"),
        (newer, "has version 99, and this library reads version"),
        (link_to_itself, "cannot be written: Too many levels of symbolic links"),
    ],
)
async def test_a_path_that_is_no_store_is_refused_and_not_changed(
    path: Path, make: Callable[[Path], Any], message: str
) -> None:
    """Not one byte of it, and no file of the store is left beside it but the lock."""
    make(path)
    before = content(path)
    store = SqliteStore(path)

    with pytest.raises(ConfigurationError, match=message) as caught:
        await store.begin("one", [KIND])
    await store.close()

    assert str(path) in str(caught.value)
    assert content(path) == before
    assert files(path.parent) <= {"store.db", "store.db.lock"}


async def test_a_directory_that_does_not_exist_is_refused(path: Path) -> None:
    """The message has the path and the reason."""
    with pytest.raises(ConfigurationError, match=r"none/store\.db' cannot be written: No such file or directory"):
        await SqliteStore(path.parent / "none" / path.name).begin("one", [KIND])


async def test_a_link_is_another_name_of_the_store_that_it_points_to(path: Path) -> None:
    """Both names have one lock, and one file gets the rows."""
    await sync(SqliteStore(path), "one", scope_of(), ["i-1"])
    link = path.parent / "link.db"
    link.symlink_to(path)

    store = SqliteStore(link)
    await store.begin("two", [KIND])
    with pytest.raises(StoreLocked):
        await SqliteStore(path).begin("three", [KIND])
    await store.close()

    assert link.is_symlink()
    assert rows(path, "select sync from syncs order by 1") == [("one",), ("two",)]
    assert files(path.parent) == {"store.db", "store.db.lock", "link.db"}


@pytest.mark.usefixtures("open_umask")
async def test_all_files_are_private_whatever_the_umask_is(path: Path) -> None:
    """Stores, write-ahead log, shared memory, lock and spool have no permission for others."""
    folder = path.parent
    stores: list[Any] = [SqliteStore(path), JsonLinesStore(folder / "lines.jsonl"), CsvStore(folder / "csv")]
    for store in stores:
        await store.begin("one", [KIND])
        await store.write(scope_of(), [record(scope_of(), "i-1")])
        await store.finish_scope(scope_of(), OK)

    modes = {str(each.relative_to(folder)): stat.S_IMODE(each.stat().st_mode) for each in folder.rglob("*")}
    for store in stores:
        await store.close()

    directories = {"store.db.spool", "lines.jsonl.spool", "csv", "csv.spool"}
    files = {"store.db", "store.db-wal", "store.db-shm", "lines.jsonl", "csv/scopes.csv", "csv/ec2_instance.csv"}
    locks = {"store.db.lock", "lines.jsonl.lock", "csv.lock"}
    assert modes == dict.fromkeys(directories, 0o700) | dict.fromkeys(files | locks, 0o600)


#: Mounts of a machine with containers, shares of other machines, and a mount point with a space and a backslash.
MOUNTS = r"""
22 28 0:21 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
25 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw,errors=remount-ro
31 25 0:26 / /run/user/1000 rw,nosuid,nodev,relatime shared:301 - tmpfs tmpfs rw,size=3252456k,mode=700,uid=1000
95 25 0:45 / /mnt/nfs rw,relatime shared:52 master:3 propagate_from:2 - nfs4 10.0.0.5:/export rw,vers=4.2,hard
96 25 0:46 / /mnt/old rw,relatime - nfs 10.0.0.6:/vol/old rw,vers=3
97 25 0:47 / /mnt/win\040share rw,relatime unbindable - cifs //files/team\040x rw,vers=3.1.1,username=x
98 25 0:48 / /mnt/wsl rw,noatime - 9p C:\134 rw,dirsync,aname=drvfs;path=C:\;symlinkroot=/mnt/,trans=fd
99 25 0:49 / /home/me/a\134b\011c rw,nosuid,nodev,relatime shared:60 - fuse.sshfs me@host:/srv rw,user_id=1000
120 25 0:60 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw,lowerdir=/l/A:/l/B,upperdir=/u,workdir=/w
121 25 0:61 /@data /data rw,relatime shared:70 - btrfs /dev/sdb1 rw,subvolid=257,subvol=/@data
122 121 0:62 / /data/cache rw - fuse.s3fs s3fs rw
123 122 0:63 / /data/cache rw - xfs /dev/sdc1 rw
124 25 0:64 / /grüße rw,relatime - ceph 10.0.0.7:/ rw
125 25 0:65 malformed
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/inventory.db", "ext4"),
        ("/run/user/1000/x", "tmpfs"),
        ("/mnt/nfs", "nfs4"),
        ("/mnt/nfs/a/b", "nfs4"),
        ("/mnt/nfsx/a", "ext4"),
        ("/mnt/old/x", "nfs"),
        ("/mnt/win share/x", "cifs"),
        ("/mnt/win", "ext4"),
        ("/mnt/wsl/x", "9p"),
        ("/home/me/a\\b\tc/x", "fuse.sshfs"),
        ("/var/lib/docker/overlay2/x/merged/x", "overlay"),
        ("/data/x", "btrfs"),
        ("/data/cache/x", "xfs"),
        ("/grüße/x", "ceph"),
    ],
)
def test_the_file_system_is_that_of_the_longest_mount_point(path: str, kind: str) -> None:
    """Names are compared by whole parts and unescaped, optional fields vary, and a later mount hides an earlier one."""
    assert file_system_type(Path(path), MOUNTS) == kind


@pytest.mark.parametrize("kind", NETWORK_TYPES)
async def test_a_store_on_a_network_file_system_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The message has the type; the file is not created."""
    table = path.parent / "mountinfo"
    table.write_text(f"1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:3 / {path.parent} rw shared:1 - {kind} host:/x rw\n")
    monkeypatch.setattr(_lock, "_MOUNTS", table)

    with pytest.raises(ConfigurationError, match=rf"network file system \({kind}\).*use a local disk"):
        await SqliteStore(path).begin("one", [KIND])

    assert files(path.parent) == {"mountinfo"}
