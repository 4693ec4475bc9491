"""Simulated fleet's child process: answers as AWS does, over moto."""
