"""ISPVisualMonitor agent: polls MikroTik routers, spools, pushes."""

__version__ = "0.1.0"
