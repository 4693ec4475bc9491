"""Entry point of the fleet's child process: run by path, so that it imports the server's modules and nothing else.

`python -m asyncauth.testing...` would run the package's own `__init__` first, and with it aiobotocore: most of a second
before the first request. Empty modules that only know where their files are take the place of the packages above.
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
    server = os.path.dirname(os.path.abspath(__file__))
    testing = os.path.dirname(server)
    _stand_in("asyncauth", os.path.dirname(testing))
    _stand_in("asyncauth.testing", testing)
    _stand_in("asyncauth.testing._server", server)
    from asyncauth.testing._server.server import main

    main()
