"""Helpers without AWS: clock, wake-ups, exceptions, checks. Each module is imported by itself."""
