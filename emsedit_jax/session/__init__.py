"""Editing by hand: a model under edits that are made, looked at, taken back and saved."""
