#!/usr/bin/env bash
# Takes out of an image what must be born on each server, and what nobody needs. The last thing before the
# snapshot: nothing may run after it that writes. verify.sh looks whether it is so.
#
#   cleanup.sh [ROOT]     the system that becomes the image; / unless told
set -euo pipefail

root=${1:-/}
root=${root%/}

# In a system that runs (Packer's), what writes at power-off is stopped now, and journald writes to memory.
if [ -z "$root" ] && [ -d /run/systemd/system ]; then
  for unit in systemd-random-seed systemd-timesyncd rsyslog unattended-upgrades; do
    ! systemctl --quiet is-active "$unit" || systemctl stop "$unit"
  done
  journalctl --relinquish-var
fi

# cloud-init remembers that it ran, and would ignore the user data of the next server.
rm -rf "$root"/var/lib/cloud/* "$root"/var/log/cloud-init*
# systemd makes a new one at boot if the file is there and empty; D-Bus goes by that one.
: >"$root/etc/machine-id"
rm -f "$root/var/lib/dbus/machine-id"
mkdir -p "$root/var/lib/dbus"
ln -s /etc/machine-id "$root/var/lib/dbus/machine-id"
rm -f "$root"/etc/ssh/ssh_host_* "$root/etc/hostname"
rm -rf "$root/root/.ssh" "$root"/home/*/.ssh
# Packer and the provider may have set one.
sed -i 's/^root:[^:]*:/root:*:/' "$root/etc/shadow"
rm -rf "$root/var/lib/tidepool" "$root/run/tidepool"
rm -rf "$root/var/lib/docker/engine-id" "$root"/var/lib/docker/containers/* "$root/var/lib/docker/network/files" \
  "$root"/var/lib/docker/tmp/* "$root"/var/lib/docker/runtimes
rm -f "$root"/var/lib/fail2ban/*.sqlite3*
rm -f "$root/var/lib/systemd/random-seed" "$root/var/lib/systemd/credential.secret" \
  "$root"/var/lib/dhcp/*.leases "$root/var/lib/systemd/timesync/clock"
rm -rf "$root"/var/lib/systemd/network/* "$root"/var/lib/private/systemd/*
rm -rf "$root"/var/log/journal/* "$root"/var/cache/apt/*.bin "$root"/var/cache/apt/archives/*.deb \
  "$root"/var/cache/apt/archives/partial/* "$root"/var/lib/apt/lists/* "$root"/var/cache/debconf/*-old
find "$root/var/log" ! -type d -delete
find "$root/root" "$root/home" -maxdepth 2 -name '.*history' -delete
find "$root/tmp" "$root/var/tmp" -mindepth 1 -delete
# Locks of password files have copies of them.
rm -f "$root"/etc/{passwd,shadow,group,gshadow,subuid,subgid}-
