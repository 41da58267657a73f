"""Migrations of the history's database, run by `History.upgrade`. Each is a file of its own in `versions` and is never changed again."""
