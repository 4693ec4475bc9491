"""Benchmarks of the cost of one more AWS account: asyncauth and its peers, same work, same server, one machine."""
