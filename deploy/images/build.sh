#!/usr/bin/env bash
# Builds an image with podman, taking layers that did not change as they are, and prints its name and nothing else.
# Use: build.sh code | build.sh bento | build.sh stand-ins. BASE is a Python 3.11, python:3.11-slim unless it is set; the Bento is that of the
# champion in LOAN_HOME. An image is called by what is in it: loan-assets:VERSION-DIGEST, loan-assets-bento:VERSION-DIGEST.
set -euo pipefail
here="$(dirname "$(readlink -f "$0")")"
root="$(readlink -f "$here/../..")"
export CONTAINERS_CONF="${CONTAINERS_CONF:-$here/containers.conf}"
base="${BASE:-python:3.11-slim}"

code() {
  cd "$root"
  local version digest
  version="$(sed -n 's/^version = //p' setup.cfg)"
  digest="$(find requirements.lock deploy/requirements.lock deploy/Dockerfile deploy/images/prune.sh setup.cfg \
    pyproject.toml workspace.yaml loan_assets bento -type f ! -name '*.pyc' | LC_ALL=C sort | xargs sha256sum |
    sha256sum | cut -c1-12)"
  podman build --network host --file deploy/Dockerfile --build-arg "BASE=$base" --build-arg "VERSION=$version" \
    --build-arg "REVISION=$digest" --tag "loan-assets:$version-$digest" . >&2
  echo "localhost/loan-assets:$version-$digest"
}

# The champion's Bento, every file of it verified.
CHAMPION='
from loan_assets.resources.bento_store import BentoStore
from loan_assets.resources.release_store import ReleaseStore
from loan_assets.settings import Settings
settings = Settings.from_environment()
champion = ReleaseStore.over(settings).champion()
print(settings.bentoml_home, BentoStore(home=str(settings.bentoml_home)).tag_of(champion.version, champion.digest))
'

bento() {
  local home tag work image
  cd "$root"
  read -r home tag < <(python -c "$CHAMPION")
  image="loan-assets-bento:${tag#*:}"
  # BentoML reads the Bento's own template below the working directory only, and unpacks below the temporary one.
  work="$(mktemp -d)"
  (cd "$work" && TMPDIR="$work" BENTOML_HOME="$home" BENTOML_DO_NOT_TRACK=True bentoml containerize "$tag" \
    --backend podman --image-tag "$image" --opt network=host --opt "build-arg=BASE=$base" \
    --opt "label=org.opencontainers.image.version=${tag#*:}" >&2)
  rm -rf "$work"
  # BentoML ends without an error where the build failed.
  podman image exists "$image"
  echo "localhost/$image"
}

stand_ins() {
  cd "$root"
  local digest
  digest="$(cat deploy/images/stand-ins.* | sha256sum | cut -c1-12)"
  podman build --network host --file deploy/images/stand-ins.Dockerfile --build-arg "BASE=$base" \
    --tag "loan-assets-stand-ins:$digest" . >&2
  echo "localhost/loan-assets-stand-ins:$digest"
}

"${1//-/_}"
