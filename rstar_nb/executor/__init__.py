"""Run programs that nobody has read: sandbox, stage, zygote, pool."""
