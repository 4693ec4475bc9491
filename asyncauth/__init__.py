"""Fan out over AWS accounts with asyncio: roles assumed once, tokens kept fresh, a ready client per account."""
