"""Ingest v1: what agents send, checked and stored exactly once."""
