"""Read an answer, and say when two answers are the same."""
