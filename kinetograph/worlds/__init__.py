"""Synthetic universes: one file is one world, its name is the file's name."""
