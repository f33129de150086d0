"""One door per outside system, each a Dagster resource that hands out plain objects. Heavy vendors wait inside functions."""
