"""What the agent and the server share: telemetry registry v1, ingest v1, seed v1, entity identity."""

__version__ = "0.1.0"
