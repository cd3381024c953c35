"""One sampling run from its first step to its last: watching, going sparse, faults, saving and
telling."""
