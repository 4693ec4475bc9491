"""Commands, one module each, with an attribute `command`; `asyncauth.cli.program` lists them."""
