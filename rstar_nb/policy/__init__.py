"""Models that write steps: the tiny one, pretrained ones, servers, and what they cost."""
