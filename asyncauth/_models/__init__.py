"""The data that everything else is about: accounts, roles, keys, outcomes."""

from asyncauth._models._account import Account, as_account
from asyncauth._models._keys import Credentials, Keys, Profile
from asyncauth._models._outcome import DONE_BEFORE, JournalUse, Outcome, Phase, Report
from asyncauth._models._role import Role, as_role
from asyncauth._status import Status

__all__ = [
    "DONE_BEFORE",
    "Account",
    "Credentials",
    "JournalUse",
    "Keys",
    "Outcome",
    "Phase",
    "Profile",
    "Report",
    "Role",
    "Status",
    "as_account",
    "as_role",
]
