"""RouterOS emulator of ISPVisualMonitor."""

__version__ = "0.1.0"
