"""The gallery: one file per group of assets, checks beside what they judge. Files never import each other."""

import warnings

import dagster as dg

# A check of one day, marked preview; the tests of the daily watch pin its behaviour.
warnings.filterwarnings("ignore", message=r".*partitions_def on an AssetCheckSpec.*", category=dg.PreviewWarning)
# Both are marked beta; the tests of the backfill and of the trailing window pin their behaviour.
warnings.filterwarnings(
    "ignore", message=r".*`(backfill_policy|allow_nonexistent_upstream_partitions)`.*", category=dg.BetaWarning
)
