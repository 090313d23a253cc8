#!/bin/sh
# dpkg calls it as «configure [VERSION BEFORE]», rpm with the number of versions that
# are installed now. The service is not started: it needs a configuration first.
set -e

case "$1" in
	configure) before=$2 ;;
	1) before= ;;
	[2-9]) before=some ;;
	*) exit 0 ;;
esac

if command -v systemd-sysusers >/dev/null; then
	systemd-sysusers pgwicket.conf
elif ! getent passwd pgwicket >/dev/null; then
	useradd --system --user-group --home-dir / --shell /usr/sbin/nologin pgwicket
fi

[ -d /run/systemd/system ] || exit 0
systemctl daemon-reload
[ -n "$before" ] || exit 0
systemctl --quiet is-active pgwicket.service || exit 0
# A gate that runs goes on with its old program if the new one would not start. Asked as
# its account, whose the key is.
if runuser -u pgwicket -- pgwicket check >/dev/null; then
	systemctl --no-block restart pgwicket.service
else
	echo "pgwicket: the new version does not take the configuration; the old one runs on until you restart it" >&2
fi
