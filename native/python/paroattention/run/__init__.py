"""One sampling run from its first step to its last.

`session` decides what each call is. `learning` and `observation` come to a profile, `watching` and
its parts (`meter`, `proposals`, `target_error`, `block_memory`) sample sparse calls, `faults` and
`saving` keep a run alive, `report` tells.
"""
