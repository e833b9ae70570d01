"""Two verifiers of a release and the attacks that they must catch."""
