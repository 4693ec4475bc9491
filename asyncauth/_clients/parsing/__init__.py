"""Parsers of responses: compiled from the service model, with results equal to botocore's."""
