"""Process settings: environment variables that switch off what asyncauth changes in the whole process.

They are variables, not arguments of a pool, because two pools of one process share the garbage collector and the
loggers, and because the collector's threshold is raised before there is a pool, during imports. A variable is read each
time that the change would be made, so a program can also set it in `os.environ`.
"""

from __future__ import annotations

import os
from typing import Final

#: The threshold of the garbage collector stays as it is.
GC_VARIABLE: Final = "ASYNCAUTH_GC"
#: The loggers of botocore, boto3 and the HTTP libraries get no filter.
LOG_REDACTION_VARIABLE: Final = "ASYNCAUTH_LOG_REDACTION"

_OFF: Final = frozenset({"0", "off", "false", "no"})


def is_switched_off(variable: str) -> bool:
    """Return whether a variable is 0, off, false or no, in any case; every other value leaves the change on."""
    return os.environ.get(variable, "").strip().lower() in _OFF
