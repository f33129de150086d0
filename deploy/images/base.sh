#!/usr/bin/env bash
# Makes a stand-in for python:3.11-slim from Debian's packages, where no image registry can be reached; needs root.
# Use: base.sh NAME, for instance localhost/python-stand-in:3.11. One that is there already is kept.
set -euo pipefail
name="$1"
export CONTAINERS_CONF="${CONTAINERS_CONF:-$(dirname "$(readlink -f "$0")")/containers.conf}"
if podman image exists "$name"; then exit 0; fi

suite=bookworm  # whose Python is 3.11
# The mirror that this machine's own packages come from.
mirror="${MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Codename: $suite" | head -1)}"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "$suite" "$work" ${mirror:+"$mirror"} >"$work.log" 2>&1 ||
  { tail -5 "$work.log" >&2; exit 1; }
rm -f "$work.log"

# What the slim images leave out as well.
rm -rf "$work"/var/cache/apt/* "$work"/var/lib/apt/lists/* "$work"/var/log/* "$work"/usr/share/{doc,man,info,lintian}/*
find "$work/usr/share/locale" -mindepth 1 -maxdepth 1 -exec rm -rf {} +
# There Python is called by its bare name.
ln -s /usr/bin/python3.11 "$work/usr/local/bin/python"
ln -s /usr/bin/python3.11 "$work/usr/local/bin/python3"
# This machine may trust authorities that Debian does not know; without them pip finds nothing here.
authorities=/etc/ssl/certs/ca-certificates.crt
cp "$authorities" "$work$authorities"

tar -C "$work" -c . | podman import -q \
  --change "ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin" \
  --change "ENV LANG=C.UTF-8" --change "ENV PIP_CERT=$authorities" --change "ENV SSL_CERT_FILE=$authorities" \
  --change 'CMD ["python3"]' \
  --change 'LABEL org.opencontainers.image.title="Stand-in for python:3.11-slim, made with debootstrap"' \
  - "$name"
