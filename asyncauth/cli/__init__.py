"""Command line `asyncauth`: what the library does, from a terminal, in the habits of the AWS CLI.

The modules of this package import no botocore when they are imported; the bodies of commands do, when they run.
"""
