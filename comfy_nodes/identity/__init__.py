"""Which model a run is of: a fingerprint that copies in other number formats share, and a hash of
what changes its weights."""
