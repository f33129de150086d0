"""What is known about lending, as plain functions: no Dagster, no services, no state."""
