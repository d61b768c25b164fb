#!/usr/bin/env bash
# Makes the browsers' volume: Debian 12's headless Chromium with every library and font that it needs, so that it
# runs in any container of that Debian or a newer one, whatever is installed there.
#
#   browsers.sh DEST      DEST becomes a directory of that content, laid out as Playwright lays its own out:
#                         OpenClaw finds chromium-VERSION/chrome-linux/chrome by PLAYWRIGHT_BROWSERS_PATH.
#
# Needs apt (any Debian), network, and no root. Packages are checked by Debian's keys.
set -euo pipefail

[ $# -eq 1 ] || { echo "usage: browsers.sh DEST" >&2; exit 64; }
dest=$1
[ ! -e "$dest" ] || { echo "browsers.sh: $dest is there already" >&2; exit 1; }
keys=/usr/share/keyrings/debian-archive-keyring.gpg
work=$(mktemp -d -p "$([ -w /dev/shm ] && echo /dev/shm || dirname "$dest")")
trap 'rm -rf "$work"' EXIT

# A world of its own for apt, in which nothing is installed: so all that is needed is fetched, for Debian 12.
mkdir -p "$work"/{lists/partial,cache/archives/partial,root,etc,none}
: >"$work/status"
cat >"$work/etc/sources.list" <<SOURCES
deb [signed-by=$keys] http://deb.debian.org/debian bookworm main
deb [signed-by=$keys] http://deb.debian.org/debian-security bookworm-security main
SOURCES
apt() {
  apt-get -qq -o Dir::State="$work" -o Dir::State::lists="$work/lists" -o Dir::State::status="$work/status" \
    -o Dir::Cache="$work/cache" -o Dir::Etc::sourcelist="$work/etc/sources.list" -o Dir::Etc::sourceparts="$work/none" \
    -o Dir::Etc::preferencesparts="$work/none" -o APT::Architecture=amd64 -o APT::Architectures=amd64 -o Debug::NoLocking=1 \
    -o APT::Sandbox::User="$(id -un)" "$@"
}
apt update
apt install -y --no-install-recommends --download-only chromium-headless-shell fonts-liberation fonts-noto-color-emoji
for package in "$work"/cache/archives/*.deb; do
  dpkg-deb -x "$package" "$work/root"
done

shell=$(find "$work/root/usr/lib" -type f \( -name chromium-headless-shell -o -name headless_shell \) -size +10M)
[ -f "$shell" ] || { echo "browsers.sh: the package has another layout" >&2; exit 1; }
version=$(dpkg-deb -f "$work"/cache/archives/chromium-headless-shell_*.deb Version | sed 's/[-+~].*//')
home=$work/volume/chromium-$version/chrome-linux
mkdir -p "$home/lib" "$home/fonts"
cp -a "$(dirname "$shell")/." "$home/"
# For the browser's own developers; and its own words, of which there are few, are English.
rm -rf "$home"/*.TOC "$home"/libVkLayer_* "$home"/libVkICD_*
[ ! -d "$home/locales" ] || find "$home/locales" -type f ! -name 'en-US.*' -delete
# What it opens by name when it needs it, beside what it is linked against. The container's own C library is used.
libraries=$work/root/usr/lib/x86_64-linux-gnu
libraries=$libraries:$libraries/pulseaudio:$work/root/lib/x86_64-linux-gnu
linked() {
  LD_LIBRARY_PATH=$libraries ldd "$@" | sed -n "s|.*=> \($work/root/[^ ]*\).*|\1|p"
}
named=()
for name in libsoftokn3.so libfreebl3.so libfreeblpriv3.so libnssckbi.so libnssutil3.so; do
  while IFS= read -r found; do named+=("$found"); done < <(find "$work/root" -name "$name")
done
{ linked "$shell" "${named[@]}"; printf '%s\n' "${named[@]}"; } | sort -u |
  grep -vE '/(ld-linux-x86-64|libc|libm|libdl|libpthread|librt|libresolv|libutil)\.so' |
  while IFS= read -r library; do cp -L "$library" "$home/lib/"; done
missing=$(LD_LIBRARY_PATH=$home/lib ldd "$shell" "$home"/lib/* | sed -n 's|^[[:space:]]*\([^ ]*\) => \(.*\)|\1 \2|p' |
  grep -vE '^(ld-linux-x86-64|libc|libm|libdl|libpthread|librt|libresolv|libutil)\.so' | grep -vF "$home/lib/" || true)
[ -z "$missing" ] || { printf 'browsers.sh: not in the volume:\n%s\n' "$missing" >&2; exit 1; }
find "$work/root/usr/share/fonts" -name '*.ttf' -exec cp {} "$home/fonts/" \;
cat >"$home/fonts/fonts.conf" <<'FONTS'
<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir prefix="relative">.</dir>
  <cachedir>/tmp/fontconfig</cachedir>
</fontconfig>
FONTS
cat >"$home/chrome" <<LAUNCHER
#!/bin/sh
here=\${0%/*}
export LD_LIBRARY_PATH="\$here/lib" FONTCONFIG_FILE="\$here/fonts/fonts.conf"
exec "\$here/$(basename "$shell")" "\$@"
LAUNCHER
chmod 755 "$home/chrome"
chmod -R go+rX,go-w "$work/volume"
mkdir -p "$(dirname "$dest")"
rm -rf "$dest.partial"
cp -a --no-preserve=ownership "$work/volume" "$dest.partial"
mv "$dest.partial" "$dest"
