"""Which step was good: preference pairs, and the models that learn from them."""
