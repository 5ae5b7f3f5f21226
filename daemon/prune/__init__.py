"""Thinning: which snapshots live, which objects nobody needs any more, and the checkpoint that says so."""
