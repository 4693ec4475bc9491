"""Where the fleet's child process begins: run by path, so that it imports the rooms below and nothing else.

`python -m asyncauth.testing...` would run the package's own `__init__` first, and with it aiobotocore: most of a second
before the first request. The packages above are stood in for by empty modules that only know where their files are.
"""

from __future__ import annotations

import os
import sys
import types


def _stand_in(name: str, folder: str) -> None:
    package = types.ModuleType(name)
    package.__path__ = [folder]
    sys.modules[name] = package


if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    _stand_in("asyncauth", os.path.dirname(here))
    _stand_in("asyncauth.testing", here)
    from asyncauth.testing._server import main

    main()
