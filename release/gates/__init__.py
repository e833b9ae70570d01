"""Gates of a release: vulnerabilities, secrets, misconfiguration. Each proves in every run that it can fail.

No scanner runs where a key is: every gate first looks for a signing key in its reach, and refuses when there is one.
"""

from __future__ import annotations


class GateError(Exception):
    """The gate did not run, or cannot be trusted: the text says what to do. Never a pass."""
