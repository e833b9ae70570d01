"""The read side: bounded series, summaries, sites and devices, as JSON."""
