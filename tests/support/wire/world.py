"""Environment of the sources' tests: a simulated fleet, the stubs, and processes with an empty home."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.wire.stubs import SECRET, Wire

if TYPE_CHECKING:
    from asyncauth import Account, Keys
    from asyncauth.testing import SimulatedFleet

_PROBE = Path(__file__).parent / "probe.py"
_ROOT = Path(__file__).parents[3]

#: Prefix of the session tokens of the simulated fleet.
_TOKEN = "SimulatedSessionToken"


def stamp(seconds: float) -> str:
    """Return the time `seconds` from now in AWS's format."""
    return f"{datetime.now(UTC) + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"


def write_files(home: Path, files: dict[str, str]) -> None:
    """Write files below a home directory."""
    for name, content in files.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


@dataclass
class World:
    """The fleet and the stubs that the processes of a module's tests send requests to.

    Args:
        fleet: serves STS for every process: the AssumeRole of a profile, and the one that follows.
        wire: serves the credential endpoints that are not STS.
        web_identity_token: a token that the fleet accepts.
        owners: the ARN that each key id belongs to.
        secrets: the secret access keys that were issued.
    """

    fleet: SimulatedFleet
    wire: Wire
    web_identity_token: str
    owners: dict[str, str] = field(default_factory=dict)
    secrets: set[str] = field(default_factory=set)

    def account(self, partition: str) -> Account:
        """Return the account of a partition whose roles the sources assume."""
        return next(account for account in self.fleet.accounts if account.partition == partition)

    def user(self, name: str, partition: str = "aws") -> Keys:
        """Return long-term keys of a user of that name."""
        keys = self.fleet.blocking.add_identity(name, partition=partition)
        return self._known(keys, f"arn:{partition}:iam::{self.fleet.management(partition).id}:user/{name}")

    def session(self, name: str, partition: str = "aws", lifetime: float | None = None) -> Keys:
        """Return temporary keys of a role session of that name."""
        keys = self.fleet.blocking.add_identity(name, partition=partition, role="source", lifetime=lifetime)
        home = self.fleet.management(partition).id
        return self._known(keys, f"arn:{partition}:sts::{home}:assumed-role/source/{name}")

    def role(self, name: str, partition: str = "aws", *, in_management: bool = True) -> str:
        """Return the ARN of a role that every identity of its partition may assume."""
        home = self.fleet.management(partition) if in_management else self.account(partition)
        return self.fleet.blocking.add_role(home, name, trusted=["*"])

    def _known(self, keys: Keys, arn: str) -> Keys:
        self.owners[keys.access_key_id] = arn
        self.secrets.add(keys.secret_access_key)
        return keys

    def environ(self) -> dict[str, str]:
        """Return the variables with the addresses of all endpoints."""
        return {
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL_STS": self.fleet.endpoint_url,
            "AWS_ENDPOINT_URL_SSO": f"{self.wire.url}/sso",
            "AWS_ENDPOINT_URL_SSO_OIDC": f"{self.wire.url}/oidc",
            "AWS_ENDPOINT_URL_SIGNIN": f"{self.wire.url}/signin",
        }

    def leaks(self, text: str) -> list[str]:
        """Return the lines of a text that contain a secret."""
        secrets = {SECRET, _TOKEN, *self.secrets}
        return [line for line in text.splitlines() if any(secret in line for secret in secrets)]

    def run(self, home: Path, env: dict[str, str], files: dict[str, str], sources: list[dict[str, Any]]) -> list[Any]:
        """Run one process in `home`, with PATH alone of this environment, and return the results that it printed.

        Its output and its log, at DEBUG, must contain no secret.
        """
        write_files(home, files)
        clean = {name: value for name, value in os.environ.items() if name == "PATH" or name.startswith("COV")}
        done = subprocess.run(
            [sys.executable, "-W", "error", str(_PROBE), json.dumps(sources)],
            env=clean | {"HOME": str(home), "PYTHONPATH": str(_ROOT)} | self.environ() | env,
            cwd=home,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # no terminal
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert self.leaks(done.stdout + done.stderr) == []
        results: list[Any] = json.loads(done.stdout)
        return results
