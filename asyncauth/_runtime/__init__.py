"""Helpers without AWS: clock, wake-ups, exceptions, checks. Import the module that you need."""
