"""Checks that say why an answer is wrong, the labs that travel with the package, and their marks."""
