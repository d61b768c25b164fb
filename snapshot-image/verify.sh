#!/usr/bin/env bash
# Looks whether an image holds anything that must be born on each server, or lacks what each server needs.
# Says every fault, and fails if there is one.
#
#   verify.sh [ROOT]      the image's root; / unless told
set -euo pipefail

root=${1:-/}
root=${root%/}
faults=0

fault() {
  printf '[verify] %s\n' "$*" >&2
  faults=$((faults + 1))
}

# absent WHAT PATTERN ...: nothing may match.
absent() {
  local what=$1 found
  shift
  while IFS= read -r found; do
    fault "$what: ${found#"$root"}"
  done < <(for pattern in "$@"; do compgen -G "$root$pattern" || true; done)
}

# The directory is empty, or not there.
empty() {
  local found
  [ -d "$root$2" ] || return 0
  found=$(find "$root$2" -mindepth 1 ! -type d -print -quit)
  [ -z "$found" ] || fault "$1: ${found#"$root"}"
}

present() {
  [ -e "$root$2" ] || [ -L "$root$2" ] || fault "$1 is missing: $2"
}

identity() {
  if [ ! -f "$root/etc/machine-id" ] || [ -s "$root/etc/machine-id" ]; then
    fault "machine id: /etc/machine-id must be there and empty"
  fi
  [ "$(readlink "$root/var/lib/dbus/machine-id")" = /etc/machine-id ] ||
    fault "machine id: /var/lib/dbus/machine-id must lead to the other"
  absent "identity of a server" /etc/hostname /var/lib/tidepool /run/tidepool/user-data.json
  absent "user data of a server" '/var/lib/cloud/instance*' /var/lib/cloud/data /var/lib/cloud/seed
  absent "SSH host key" '/etc/ssh/ssh_host_*'
  absent "identity of Docker" /var/lib/docker/engine-id '/var/lib/docker/containers/*'
  absent "state of OpenClaw" /root/.openclaw '/home/*/.openclaw' '/var/lib/docker/volumes/*/_data/openclaw.json' \
    '/var/lib/docker/volumes/*/_data/state'
  absent "randomness or secret of one machine" /var/lib/systemd/random-seed /var/lib/systemd/credential.secret \
    '/var/lib/dhcp/*.leases' /var/lib/systemd/timesync/clock
  absent "bans of one machine" '/var/lib/fail2ban/*.sqlite3*'
}

secrets() {
  local dir found
  absent "way in" /root/.ssh '/home/*/.ssh' /usr/sbin/sshd
  absent "cloud or registry credential" /root/.docker/config.json '/root/.config/hcloud/*' /root/.netrc
  while IFS=: read -r user password _; do
    case $password in '*' | '!'*) ;; *) fault "password of $user in /etc/shadow" ;; esac
  done <"$root/etc/shadow"
  for dir in etc root home opt srv usr/local usr/share/tidepool var/lib/cloud; do
    [ -d "$root/$dir" ] || continue
    while IFS= read -r found; do
      fault "private key or token: ${found#"$root"}"
    done < <(grep -rlIE --exclude-dir=node_modules \
      -e '-----BEGIN ([A-Z]+ )?PRIVATE KEY-----' -e '"enrolment_token"[[:space:]]*:' \
      -e 'HCLOUD_TOKEN[[:space:]]*[=:][[:space:]]*["'"'"']?[A-Za-z0-9]{64}' \
      -e '(^|[^A-Za-z0-9])(sk-ant-|sk-proj-|tp_[0-9a-z]+_|ghp_)[A-Za-z0-9_-]{16,}' "$root/$dir" 2>/dev/null || true)
  done
}

traces() {
  empty "log" /var/log
  empty "package list" /var/lib/apt/lists
  empty "temporary file" /tmp
  empty "temporary file" /var/tmp
  absent "history" '/root/.*history' '/home/*/.*history'
  absent "left over of the build" /usr/sbin/policy-rc.d '/etc/*-' '/usr/share/tidepool/*.partial'
}

parts() {
  local unit
  present "agent" /usr/local/bin/tidepool-agent
  present "manifest" /usr/share/tidepool/manifest.json
  present "nginx" /usr/sbin/nginx
  for unit in docker.service fail2ban.service nftables.service tidepool-agent.service tidepool-networks.path \
    tidepool-server.service; do
    compgen -G "$root/etc/systemd/system/*.target.wants/$unit" >/dev/null || fault "$unit does not start at boot"
  done
  present "start with the packet filter" /etc/systemd/system/nftables.service.wants/tidepool-networks.service
  for unit in nginx.service ssh.service apt-daily.timer apt-daily-upgrade.timer; do
    [ "$(readlink "$root/etc/systemd/system/$unit")" = /dev/null ] || fault "$unit must be masked"
  done
  if grep -q '"browsers"' "$root/usr/share/tidepool/manifest.json"; then
    compgen -G "$root/var/lib/docker/volumes/tidepool-browsers/_data/chromium-*/chrome-linux/chrome" >/dev/null ||
      fault "the browsers' volume has no Chromium"
  fi
  absent "unattended upgrades" /usr/bin/unattended-upgrade
}

identity
secrets
traces
parts
[ "$faults" = 0 ] || { printf '[verify] %s fault(s)\n' "$faults" >&2; exit 1; }
printf '[verify] clean\n'
