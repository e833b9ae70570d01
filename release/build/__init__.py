"""The build of a release: from a clean checkout and the locks to one unsigned tree, the same bytes on every machine.

`python -m release.build --version V` (or `make release VERSION=V`) runs the stages of `__main__`; every stage is a
module here. Signing is a second stage over the manifest and no part of this package.
"""
