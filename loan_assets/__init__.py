"""loan_assets: a Dagster asset graph that takes a loan book to a checked, registered and packaged default model.

The rooms, from the ground up; a room imports only from those listed above it.

- `books/`: what one loan row means, one module per loan book. Standard library only.
- `policy.py`: every number the bank chose, each with its origin. Standard library only.
- `refusal.py`: how this package says no: a cause and a next step.
- `release.py`: the format of a model release, a folder of plain files with their digests.
- `settings.py`: where things are; every environment variable, read once.
- `credit/`: what is known about lending, as plain functions.
- `resources/`: one door per outside system (files, Feast, MLflow, BentoML).
- `assets/`: the graph: book, features, model, registry, serving. The file is the group.
- `definitions.py`: the front door, where Dagster enters.
- `cli.py`: the `loan-assets` command.

The serving box lives beside this package in `bento/`; it carries `books`, `policy`, `release` and the light
half of `credit`, and never Dagster, MLflow, Feast or scikit-learn.
"""
