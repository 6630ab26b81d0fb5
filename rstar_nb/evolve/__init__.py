"""The loop of rounds: settings, curriculum, phases, records, arms."""
