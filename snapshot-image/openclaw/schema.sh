#!/usr/bin/env bash
# Prints the JSON Schema of the configuration of OpenClaw in a container, by that version itself.
#
#   schema.sh IMAGE
set -euo pipefail

[ $# = 1 ] || { echo "usage: schema.sh IMAGE" >&2; exit 64; }
# The command line writes into its home even when it only prints; that home is thrown away.
schema=$(docker run --rm --network none --tmpfs /tmp --env HOME=/tmp --env OPENCLAW_HOME=/tmp \
  --env OPENCLAW_STATE_DIR=/tmp/state --entrypoint node "$1" /app/openclaw.mjs config schema)
[ "${schema:0:1}" = "{" ] || { echo "schema.sh: $1 printed no schema" >&2; exit 1; }
printf '%s\n' "$schema"
