#!/usr/bin/env bash
# Makes the file that brings a version of OpenClaw to servers that were made without it: to be signed
# (`tidepool artefact sign FILE --kind openclaw-image`) and added (`tidepool artefact add`).
#
#   release.sh IMAGE VERSION FILE [SIGNAL]
#
# IMAGE is one that this machine's Docker has, such as REPOSITORY@sha256:..., with the official image's contract. If
# the channel plugins are not in it, they are put on top, which takes VERSION's folder here and the npm registry.
# SIGNAL (SIGUSR2) is what restarts that version, for agents that do not know it. `tidepool` is on the PATH.
set -euo pipefail

[ $# -ge 3 ] || { echo "usage: release.sh IMAGE VERSION FILE [SIGNAL]" >&2; exit 64; }
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
image=$1 version=$2 file=$3 signal=${4:-SIGUSR2}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if ! docker run --rm --network none --entrypoint test "$image" \
  -d /app/dist/extensions/slack -o -d /app/node_modules/openclaw/dist/extensions/slack; then
  docker build --quiet --network host --build-arg "BASE=$image" --tag "tidepool-openclaw:$version" \
    --file "$here/Dockerfile" "$here/$version/plugins" >&2
  image=tidepool-openclaw:$version
fi
id=$(docker image inspect -f '{{.Id}}' "$image")
docker save --output "$work/image.tar" "$id"
bash "$here/schema.sh" "$id" >"$work/config-schema.json"
tidepool artefact pack-openclaw "$file" --version "$version" --config-schema "$work/config-schema.json" \
  --container "$id" --archive "$work/image.tar" --restart-signal "$signal"
