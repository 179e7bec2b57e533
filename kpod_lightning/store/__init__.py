"""Store: files written whole or not at all, JSON Lines, ragged tables, keys, and the errors that a user reads."""
