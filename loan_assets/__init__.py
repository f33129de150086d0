"""loan_assets: a Dagster asset graph that takes a loan book to a checked, registered and packaged default model.

The rooms, from the ground up; a room imports only from those listed above it.

- `refusal.py`: how this package says no: a cause and a next step.
- `cycles.py`: how seldom Python looks for reference cycles.
- `sealed.py`: folders that are whole or not there, and tell when a byte of theirs was altered.
- `books/`: what one loan row means, one module per loan book. Standard library only.
- `policy.py`: every number the bank chose, each with its origin. Standard library only.
- `prediction_record.py`: what one logged answer of the endpoint is, and how a day of them is read.
- `credit/`: what is known about lending, as plain functions.
- `release.py`: the format of a model release, a folder of plain files with their digests.
- `online_table.py`: the format of the newest features by client number, as the endpoint reads them.
- `standing.py`: which releases stand, the champion and a challenger, as the endpoint follows them.
- `day_file.py`: Parquet files of other systems, in which a request is called the same everywhere.
- `histories.py`: a history in files, as the backtest reads it, and what a backtest leaves behind.
- `policy_file.py`: a policy read from a file, every misspelt field named.
- `backtesting.py`: a history replayed from a terminal, and its models, each of which scores.
- `example_history.py`: a history for those who have none, in which the world changes and is later what it was.
- `bucket.py`: a place in an object store, and the few operations on it that everything else is built on.
- `mirror.py`: shelves of sealed folders in a bucket, and their copy on this machine.
- `shipped_log.py`: the endpoint's log in a bucket, shipped in parts, and put together again.
- `place.py`: files by name in a folder or a bucket, as backups are read and written.
- `vault.py`: what a backup place holds, contents by their digest and the backups that name them.
- `online_redis.py`: the same table in Redis, for endpoints on many machines.
- `settings.py`: where things are; every environment variable, read once.
- `findings.py`: what an examination finds, a line a place, and what to do about it.
- `connections.py`: places on other machines, and whether they keep the promises that the platform is built on.
- `databases.py`: SQLite and Postgres as files, copied while others write.
- `home.py`: the folder in which all state lives, made ready before anything runs.
- `resources/`: one door per outside system (files, Feast, MLflow, BentoML), where Dagster enters.
- `backup_parts.py`: what belongs into a backup, and in which order it is read.
- `killed_runs.py`: telling which unfinished runs live, and ending those whose process is gone.
- `asked_runs.py`: the run that carries out a step of the journal, and when it is asked for again after it failed.
- `machines.py`: on which machines a run's steps are executed, and how large those are.
- `figures.py`: a figure as Prometheus reads it.
- `journal_figures.py`: what the journal of decisions says in figures.
- `asset_figures.py`: what the newest assets say in figures: freshness, fairness, drift, arrivals.
- `run_figures.py`: what Dagster's runs have cost and how they ended.
- `backup_figures.py`: how old the newest backup is.
- `platform_metrics.py`: what Prometheus reads of the platform, these figures on one page.
- `stream.py`: a pushed statement on record and served, wherever it is met again.
- `reign.py`: the rule of succession as the platform lives it, each step written down before anything acts on it.
- `assets/`: the graph: book, features, model, registry, serving, monitoring, outcomes, succession. A file, a group.
- `buttons.py`: what a person may ask of the succession in the Dagster UI.
- `sensors.py`: what Dagster starts by itself, the arrow from a decision back to the model among it.
- `definitions.py`: the front door: the whole graph on one screen.
- `running.py`: the graph, run from a terminal.
- `summary.py`: what came of it, on one screen.
- `doctor.py`: what is there, what is missing or damaged, and what to do about it.
- `endpoint.py`: the champion's Bento as a running server on this machine.
- `webhook.py`: a way in for other systems, alarms and statements over HTTP.
- `backup.py`: everything that cannot be derived again, taken into a backup while the platform runs.
- `audit.py`: a day on record, for who has to answer for it: the champion, its data, its approval, its groups.
- `migration.py`: databases of an earlier version brought to the tables of the installed one.
- `restore.py`: a backup put back into empty places, and what is derived made again.
- `due_runs.py`: what was decided and is not carried out yet, seen to from a terminal.
- `rehearsal.py`: days lived through at the endpoint, for real.
- `simulated_home.py`: a home of its own for a history that is lived through.
- `simulation.py`: a history lived through at the endpoint, day by day, with everything that follows.
- `cli.py`: the `loan-assets` command.

The serving box lives beside this package in `bento/`; it carries `books`, `policy`, `release`, the formats it shares
with the graph and the light half of `credit`, and never Dagster, MLflow, Feast or scikit-learn.
"""
