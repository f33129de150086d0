"""The gallery: one file per group of assets, checks beside what they judge. Files never import each other."""

import warnings

import dagster as dg

# Both are marked beta; the tests of the backfill and of the trailing window pin their behaviour.
warnings.filterwarnings(
    "ignore", message=r".*`(backfill_policy|allow_nonexistent_upstream_partitions)`.*", category=dg.BetaWarning
)
