"""Trees of steps: the four phases, the strategies, the votes."""
