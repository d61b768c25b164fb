#!/usr/bin/env bash
# Makes the file that brings a version of OpenClaw to servers that were made without it: to be signed
# (`tidepool artefact sign FILE --kind openclaw-image`) and added (`tidepool artefact add`).
#
#   release.sh IMAGE VERSION FILE [SIGNAL]
#
# IMAGE is one that this machine's Docker has, such as REPOSITORY@sha256:..., with the official image's contract.
# SIGNAL (SIGUSR2) is what restarts that version, for agents that do not know it. `tidepool` is on the PATH.
set -euo pipefail

[ $# -ge 3 ] || { echo "usage: release.sh IMAGE VERSION FILE [SIGNAL]" >&2; exit 64; }
image=$1 version=$2 file=$3 signal=${4:-SIGUSR2}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
id=$(docker image inspect -f '{{.Id}}' "$image")
docker save --output "$work/image.tar" "$id"
docker run --rm --network none --entrypoint cat "$id" /app/config-schema.json >"$work/config-schema.json"
tidepool artefact pack-openclaw "$file" --version "$version" --config-schema "$work/config-schema.json" \
  --container "$id" --archive "$work/image.tar" --restart-signal "$signal"
