"""Entry point of the command `asyncauth`; without the extra `cli` it names what to install."""

from __future__ import annotations

import sys
from importlib.util import find_spec

#: The exit code for what has to be configured first, as in `asyncauth.cli.exit_codes`, which is not imported here.
_CONFIGURATION = 4


def main() -> int:
    """Run the command line, and return the exit code of the process."""
    missing = [name for name in ("click", "rich", "jmespath") if find_spec(name) is None]
    if missing:
        sys.stderr.write(f"asyncauth: the command line needs {', '.join(missing)}: run pip install 'asyncauth[cli]'\n")
        return _CONFIGURATION
    from asyncauth.cli.program import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
