"""Entry point of the fleet's child process: run by path, so that it imports only the server's modules.

`python -m asyncauth.testing...` would run the `__init__` of both packages first and import aiobotocore, which takes
most of a second. Empty modules with only a `__path__` replace the packages.
"""

from __future__ import annotations

import os
import sys
import types


def _empty_package(name: str, folder: str) -> None:
    package = types.ModuleType(name)
    package.__path__ = [folder]
    sys.modules[name] = package


if __name__ == "__main__":
    server = os.path.dirname(os.path.abspath(__file__))
    testing = os.path.dirname(server)
    _empty_package("asyncauth", os.path.dirname(testing))
    _empty_package("asyncauth.testing", testing)
    _empty_package("asyncauth.testing._server", server)
    from asyncauth.testing._server.server import main

    main()
