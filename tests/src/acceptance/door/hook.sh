#!/bin/sh
# When the initial file system is made: puts the door into it.
[ "$1" = prereqs ] && exit 0
cp -r /etc/initramfs-tools/door "$DESTDIR/etc/door"
