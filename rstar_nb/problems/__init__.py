"""Where problems come from: a generator with levels, files, public sets."""
