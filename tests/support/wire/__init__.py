"""What stands in for AWS's sources of credentials on loopback, and the program that each source is tried in."""
