"""From what was learnt to the blocks that are computed: profiles, masks, plans and their
renewal."""
