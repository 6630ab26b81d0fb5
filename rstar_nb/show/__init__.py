"""Pictures and pages: trees, widgets, rounds, reports, the dashboard."""
