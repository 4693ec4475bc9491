"""Stubs of AWS's credential endpoints on loopback, and the program that resolves each source in its own process."""
