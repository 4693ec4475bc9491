"""What one more AWS account costs: asyncauth beside its peers, same work, same server, one machine."""
