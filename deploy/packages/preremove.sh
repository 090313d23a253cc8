#!/bin/sh
# dpkg calls this with "remove" or "upgrade VERSION", rpm with the number of versions that
# remain. An upgrade does not stop the gate.
set -e

case "$1" in
	remove | deconfigure | 0) ;;
	*) exit 0 ;;
esac

[ -d /run/systemd/system ] || exit 0
systemctl --quiet disable --now pgwicket-ca-crl.timer pgwicket-fetch.service pgwicket.socket pgwicket.service
