"""What administrators put in: agents, seed bundles, people."""
