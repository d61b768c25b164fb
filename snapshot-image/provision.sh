#!/usr/bin/env bash
# Makes a bare Debian 12 into Tidepool's image. The same script under Packer, in a debootstrap tree and in a
# systemd-nspawn machine; it may be run again on what it has made. It starts nothing that goes on running.
#
#   provision.sh        as root, inside the system that becomes the image
#
# Environment:
#   TIDEPOOL_AGENT                tidepool-agent's program
#   TIDEPOOL_OPENCLAW_VERSION     2026.9.6 unless told
#   TIDEPOOL_OPENCLAW_ARCHIVE     OpenClaw's container as openclaw/container.sh makes it; or
#   TIDEPOOL_OPENCLAW_REFERENCE   where Docker pulls it from, REPOSITORY@sha256:...
#   TIDEPOOL_RELEASE_KEYS         public keys (`tidepool artefact keygen`), separated by spaces: whose agents and
#                                 OpenClaw images servers take over the link; none unless told
#   TIDEPOOL_INPUTS               a name for what went into the image; the manifest has it
#
# The first of these two that is set is taken; without either the image has no OpenClaw, and the builder
# must say so (TIDEPOOL_OPENCLAW=none), which is for tests of everything else.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
version=${TIDEPOOL_OPENCLAW_VERSION:-2026.9.6}
share=/usr/share/tidepool

say() { printf '[provision] %s\n' "$*"; }
die() { printf '[provision] error: %s\n' "$*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || die "must be root"
[ -x "${TIDEPOOL_AGENT:-}" ] || die "TIDEPOOL_AGENT names no program"
[ -n "${TIDEPOOL_OPENCLAW_ARCHIVE:-}${TIDEPOOL_OPENCLAW_REFERENCE:-}" ] || [ "${TIDEPOOL_OPENCLAW:-}" = none ] ||
  die "no OpenClaw: set TIDEPOOL_OPENCLAW_ARCHIVE or TIDEPOOL_OPENCLAW_REFERENCE"

# Packages start their services when they are installed, and those make keys, databases and identities.
start_nothing() {
  printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
  chmod 755 /usr/sbin/policy-rc.d
  trap 'rm -f /usr/sbin/policy-rc.d' EXIT
}

packages() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get dist-upgrade -y -qq --no-install-recommends
  # Recommended packages stay away, so what they would have brought is named: apparmor (no container starts
  # without its parser), growpart (cloud-guest-utils), fail2ban's two back ends; and what a provider's Debian has and
  # a bare one lacks: what cloud-init sets up the network with (ifupdown, isc-dhcp-client), udev.
  apt-get install -y -qq --no-install-recommends \
    apparmor ca-certificates cloud-guest-utils cloud-init curl dbus docker.io fail2ban ifupdown iproute2 iptables \
    isc-dhcp-client nftables nginx-light procps python3-pyinotify python3-systemd systemd-sysv systemd-timesyncd \
    udev zstd
  # Updates are new snapshots; nobody logs in.
  apt-get purge -y -qq unattended-upgrades openssh-server openssh-sftp-server >/dev/null
  apt-get autoremove -y -qq --purge >/dev/null
}

files() {
  cp -a --no-preserve=ownership "$here/files/." /
  rm -f /etc/fail2ban/jail.d/defaults-debian.conf /etc/nginx/sites-enabled/default
  install -D -m 755 "$TIDEPOOL_AGENT" /usr/local/bin/tidepool-agent
}

services() {
  # The agent runs nginx itself, with a configuration of its own.
  systemctl mask --quiet nginx.service ssh.service ssh.socket apt-daily.timer apt-daily-upgrade.timer
  systemctl enable --quiet docker.service fail2ban.service nftables.service systemd-timesyncd.service \
    tidepool-server.service tidepool-agent.service tidepool-networks.path tidepool-networks.service
}

# A Docker engine for the moment of the build, without network and out of the way of any other.
engine() {
  local run=/run/tidepool-provision tries=0
  mkdir -p "$run"
  echo '{}' >"$run/daemon.json"
  for controller in /sys/fs/cgroup/*; do # systemd-nspawn shows them read-only where there is version 1
    ! mountpoint -q "$controller" || mount -o remount,bind,rw "$controller"
  done
  export DOCKER_HOST=unix://$run/docker.sock
  dockerd --config-file "$run/daemon.json" --host "$DOCKER_HOST" --exec-root "$run/exec" \
    --pidfile "$run/docker.pid" --data-root /var/lib/docker --storage-driver overlay2 \
    --bridge none --ip-forward=false --iptables=false --ip6tables=false >"$run/dockerd.log" 2>&1 &
  engine_pid=$!
  until docker info >/dev/null 2>&1; do
    tries=$((tries + 1))
    if [ "$tries" -gt 150 ] || ! kill -0 "$engine_pid"; then
      cat "$run/dockerd.log" >&2
      die "Docker does not start"
    fi
    sleep 0.2
  done
  "$@"
  kill "$engine_pid"
  wait "$engine_pid" || true
  unset DOCKER_HOST
}

# Prints the id of the image, which is the digest of all that is in it.
openclaw_image() {
  local plugins=$here/openclaw/$version/plugins source tag
  source=${TIDEPOOL_OPENCLAW_ARCHIVE:-$TIDEPOOL_OPENCLAW_REFERENCE}
  # By what it is made from: run again with another one, the old one is not taken for it.
  tag=openclaw:$version-$({ echo "$source"; cat "$plugins/package-lock.json"; } | sha256sum | cut -c 1-12)
  if docker image inspect "$tag" >/dev/null 2>&1; then
    say "OpenClaw $version is there"
  elif [ -n "${TIDEPOOL_OPENCLAW_ARCHIVE:-}" ]; then
    say "OpenClaw $version from its archive"
    # What the official image says of itself.
    zstd -dc "$TIDEPOOL_OPENCLAW_ARCHIVE" | docker import \
      -c 'USER node' -c 'WORKDIR /app' -c 'EXPOSE 18789' -c 'ENV NODE_ENV=production HOME=/home/node' \
      -c 'ENTRYPOINT ["tini","-s","--"]' -c 'CMD ["node","openclaw.mjs","gateway"]' \
      - "$tag" >/dev/null
  else
    case $TIDEPOOL_OPENCLAW_REFERENCE in
    *@sha256:*) ;;
    *) die "a tag can change what it means: name OpenClaw by its digest, REPOSITORY@sha256:..." ;;
    esac
    say "OpenClaw $version from $TIDEPOOL_OPENCLAW_REFERENCE"
    docker pull --quiet "$TIDEPOOL_OPENCLAW_REFERENCE" >/dev/null
    say "channel plugins"
    docker build --quiet --network host --build-arg "BASE=$TIDEPOOL_OPENCLAW_REFERENCE" --tag "$tag" \
      --file "$here/openclaw/Dockerfile" "$plugins" >/dev/null
  fi
  docker image inspect -f '{{.Id}}' "$tag" >/run/tidepool-provision/image-id
  bash "$here/openclaw/schema.sh" "$tag" >"$share/config-schema.json"
}

# A volume that gateways share and none can write to. Without OpenClaw nobody uses it.
browsers_volume() {
  local volume=tidepool-browsers place
  place=$(docker volume create "$volume" >/dev/null && docker volume inspect -f '{{.Mountpoint}}' "$volume")
  if ! compgen -G "$place/chromium-*/chrome-linux/chrome" >/dev/null; then
    say "browsers"
    rm -rf "$place/.partial"
    bash "$here/openclaw/browsers.sh" "$place/.partial"
    mv "$place"/.partial/* "$place/"
    rmdir "$place/.partial"
  fi
  echo "$volume" >/run/tidepool-provision/browsers
}

openclaw() {
  openclaw_image
  browsers_volume
}

# Written by the agent itself: it knows what it speaks, and refuses a version that it does not know.
manifest() {
  local id browsers key keys=()
  for key in ${TIDEPOOL_RELEASE_KEYS:-}; do keys+=(--release-key "$key"); done
  id=$(cat /run/tidepool-provision/image-id 2>/dev/null || true)
  browsers=$(cat /run/tidepool-provision/browsers 2>/dev/null || true)
  tidepool-agent manifest --openclaw-version "$version" --config-schema "$share/config-schema.json" \
    --nginx /usr/sbin/nginx --inputs "${TIDEPOOL_INPUTS:-unknown}" --built-at "$(date -u +%FT%TZ)" ${id:+--container "$id"} \
    ${browsers:+--browsers "$browsers"} "${keys[@]}" \
    >"$share/manifest.json.partial"
  mv "$share/manifest.json.partial" "$share/manifest.json"
}

checks() {
  local line
  nginx -t -q
  nft -c -f /etc/nftables.conf
  # A jail wants to see its log.
  mkdir -p /var/lib/tidepool/nginx
  touch /var/lib/tidepool/nginx/access.log
  fail2ban-client -t >/dev/null
  line='{"time":"2026-11-27T12:00:00+00:00","client":"192.0.2.7","method":"GET","path":"/a\"b","status":401,"bytes":1}'
  fail2ban-regex "$line" /etc/fail2ban/filter.d/tidepool-nginx.conf | grep -q '1 matched' ||
    die "fail2ban does not see a refusal in nginx's log"
  rm -r /var/lib/tidepool
  systemd-analyze verify /etc/systemd/system/tidepool-*.{service,path}
  docker --version >/dev/null
}

start_nothing
say "packages"
packages
say "files and services"
files
services
mkdir -p "$share"
if [ "${TIDEPOOL_OPENCLAW:-}" = none ]; then
  echo '{"type":"object"}' >"$share/config-schema.json"
else
  engine openclaw
fi
say "manifest"
manifest
say "checks"
checks
say "done"
