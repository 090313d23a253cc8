#!/bin/sh
# The account stays: otherwise another account could get its user id and its files. So do the files in
# /etc/pgwicket, until dpkg purges the package: then the configuration goes, and keys and certificates stay.
set -e

if [ "$1" = purge ]; then
	rm -f /etc/pgwicket/pgwicket.yaml
	rmdir --ignore-fail-on-non-empty /etc/pgwicket
fi
[ -d /run/systemd/system ] || exit 0
systemctl daemon-reload
