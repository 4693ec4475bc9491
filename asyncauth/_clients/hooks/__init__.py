"""Event handlers of a client: which are shared, which are bound to an account."""
