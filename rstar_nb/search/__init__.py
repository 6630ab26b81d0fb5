"""Trees of steps: the five phases, the strategies, the votes."""
