"""The second stage of a release: keys, signatures, provenance, attestations and TUF metadata over an unsigned tree."""

from release.sign.slsa import provenance

__all__ = ["provenance"]
