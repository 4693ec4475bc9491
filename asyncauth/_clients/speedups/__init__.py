"""Fast paths with the same results as botocore's own code."""
