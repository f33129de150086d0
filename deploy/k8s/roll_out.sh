#!/usr/bin/env bash
# Takes an overlay into force: roll_out.sh OVERLAY NAMESPACE. With ENDPOINT (and TOKEN) a score is asked for in the end,
# with BACKUP=no there is nothing that could be backed up.
# Nothing new begins, what runs has ended, a backup is made, the tables are migrated, everything is started on what is new.
# Where that fails, the endpoint goes back to what it was, and daemons that were stopped for nothing begin again.
set -euo pipefail
here="$(dirname "$(readlink -f "$0")")"
overlay="$1" namespace="$2"
k() { kubectl --namespace "$namespace" "$@"; }
part() { echo "deployment/loan-assets-$1"; }

# `kubectl wait` waits for one condition, and a Job that has failed never completes.
completes() {
  local job="$1" seconds="$2"
  until [ "$seconds" -le 0 ]; do
    case "$(k get "job/$job" -o 'jsonpath={.status.conditions[?(@.status=="True")].type}')" in
    *Complete*) return ;;
    *Failed*) seconds=0 ;;
    *) sleep 5; seconds=$((seconds - 5)) ;;
    esac
  done
  echo "$job did not complete; the last that it said:" >&2
  k logs "job/$job" --tail 20 >&2 || true
  return 1
}

# The endpoint has no tables. The rest is brought forward or restored (deploy/runbooks/Upgrade.md), for an older image does
# not know newer tables.
undo() {
  if [ -z "$applied" ]; then
    [ -z "$before" ] || k scale "$(part daemon)" --replicas 1
  elif [ -n "$before" ]; then
    k rollout undo "$(part endpoint)" --to-revision "$before"
    k rollout status --timeout 10m "$(part endpoint)"
  fi
}
applied=""
before="$(k get "$(part endpoint)" --ignore-not-found \
  -o 'jsonpath={.metadata.annotations.deployment\.kubernetes\.io/revision}')"
trap '[ $? = 0 ] || undo' EXIT

if [ -n "$before" ]; then
  k scale "$(part daemon)" --replicas 0
  ours=app.kubernetes.io/name=loan-assets-daemon
  while [ -n "$(k get pods -l "$ours" -o name)" ]; do sleep 2; done
  # A Job that has ended counts no pods.
  while [ -n "$(k get jobs -l dagster/run-id -o 'jsonpath={.items[?(@.status.active)].metadata.name}')" ]; do sleep 10; done
  if [ "${BACKUP:-yes}" = yes ] && [ -n "$(k get cronjob/loan-assets-backup --ignore-not-found -o name)" ]; then
    job="loan-assets-backup-$(date +%s)"
    k create job "$job" --from cronjob/loan-assets-backup
    completes "$job" 3600
  fi
fi
# A Job's template cannot be changed.
k delete job loan-assets-migrate --ignore-not-found
kubectl apply --server-side --force-conflicts -k "$overlay"
applied=yes
completes loan-assets-migrate 900
# What is told in a ConfigMap is read when a process begins.
k rollout restart deployment -l app.kubernetes.io/part-of=loan-assets
for name in code web daemon webhook mlflow endpoint; do k rollout status --timeout 10m "$(part "$name")"; done
[ -z "${ENDPOINT:-}" ] || python3 "$here/../smoke.py"
