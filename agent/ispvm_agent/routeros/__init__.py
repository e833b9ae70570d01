"""The RouterOS API: wire format, values, the closed list of commands, and the session that sends them."""
