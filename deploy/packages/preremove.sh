#!/bin/sh
# dpkg calls it as «remove» or «upgrade VERSION», rpm with the number of versions that
# will be left. An upgrade leaves the gate running.
set -e

case "$1" in
	remove | deconfigure | 0) ;;
	*) exit 0 ;;
esac

[ -d /run/systemd/system ] || exit 0
systemctl --quiet disable --now pgwicket.socket pgwicket.service
