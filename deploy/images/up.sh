#!/usr/bin/env bash
# The whole stack on one machine, from the overlay `podman`: up.sh CODE_IMAGE BENTO_IMAGE STAND_INS_IMAGE, and down.sh.
# Passwords and tokens are made anew, kept by podman, and written nowhere else but to .up/ for who started it.
set -euo pipefail
here="$(dirname "$(readlink -f "$0")")"
root="$(readlink -f "$here/../..")"
export CONTAINERS_CONF="${CONTAINERS_CONF:-$here/containers.conf}"
code="$1" bento="$2" stand_ins="$3"
state="$root/.up"
for needed in podman kubectl catatonit; do
  command -v "$needed" >/dev/null || { echo "$needed is needed: install it, then run again." >&2; exit 1; }
done
"$here/down.sh"
mkdir -p "$state" && chmod 700 "$state"

password="$(head -c 18 /dev/urandom | base64 | tr -d '+/=')"
(umask 077; loan-assets token operator --scope predict --scope admin > "$state/token" 2> "$state/line")
tail -1 "$state/line" > "$state/tokens"

# Podman 4.3 reads the variables of a secret as JSON, encoded, and its files as a manifest, as they are.
# Their values go by standard input, for an argument is seen by everybody on the machine.
secret() {
  printf '%s\n' "${@:3}" | python3 -c '
import base64, json, sys
pairs = dict(line.rstrip("\n").split("=", 1) for line in sys.stdin)
encoded = {key: base64.b64encode(value.encode()).decode() for key, value in pairs.items()}
print(json.dumps(encoded if sys.argv[1] == "variables" else {"kind": "Secret", "data": pairs}))
' "$2" | podman secret create "$1" - >/dev/null
}
database="postgresql://postgres:$password@127.0.0.1:5432"
keys=(AWS_ACCESS_KEY_ID=stand-in AWS_SECRET_ACCESS_KEY=stand-in)
secret loan-assets-databases variables "LOAN_DAGSTER_STORAGE=$database/dagster" "LOAN_MLFLOW_URI=$database/mlflow" \
  "LOAN_FEAST_REGISTRY=$database/feast" "LOAN_FEAST_ONLINE=redis://:$password@127.0.0.1:6379/1" \
  "LOAN_ONLINE=redis://:$password@127.0.0.1:6379/0" "${keys[@]}"
secret loan-assets-dagster-storage variables "LOAN_DAGSTER_STORAGE=$database/dagster"
secret loan-assets-endpoint variables "LOAN_ONLINE=redis://:$password@127.0.0.1:6379/0" "${keys[@]}"
secret loan-assets-stand-ins variables "PASSWORD=$password"
secret loan-assets-tokens files "tokens=$(cat "$state/tokens")"

# Only what podman has a word for, with the images that are here.
kubectl kustomize "$root/deploy/k8s/overlays/podman" | python3 "$here/for_podman.py" \
  "loan-assets=$code" "loan-assets-bento=$bento" "loan-assets-stand-ins=$stand_ins" > "$state/stack.yaml"
podman kube play "$state/stack.yaml" >/dev/null
TOKEN="$(cat "$state/token")" ENDPOINT=http://127.0.0.1:3000 python3 "$root/deploy/smoke.py"
