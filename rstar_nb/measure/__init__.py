"""How good it is: intervals, paired comparisons, strategies at equal tokens."""
