"""Fine-tuning: the training loop, rows and their masks, adapters."""
