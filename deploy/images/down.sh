#!/usr/bin/env bash
# Ends the stack that up.sh started, and forgets its secrets. What was in its volumes is gone.
set -euo pipefail
here="$(dirname "$(readlink -f "$0")")"
export CONTAINERS_CONF="${CONTAINERS_CONF:-$here/containers.conf}"
ours() { grep '^loan-assets-' || true; }
pods() { podman pod ls --format '{{.Name}}' | ours; }
# Asked to end first: to be removed at once, a pod with a container that is slow to end fails and stays.
pods | xargs -r podman pod stop --time 30 >/dev/null || true
pods | xargs -r podman pod rm --force --time 10 >/dev/null
podman volume ls --format '{{.Name}}' | ours | xargs -r podman volume rm --force >/dev/null
podman secret ls --format '{{.Name}}' | ours | xargs -r podman secret rm >/dev/null
rm -rf "$here/../../.up"
