"""ISPVisualMonitor server: ingest, storage, series API and pages."""

__version__ = "0.1.0"
