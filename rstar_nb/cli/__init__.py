"""The commands of `rstar`."""
