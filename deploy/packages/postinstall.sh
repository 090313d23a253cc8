#!/bin/sh
# dpkg calls this with "configure [OLD-VERSION]", rpm with the number of installed
# versions. The service is not started, because it needs a configuration first.
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

# Once. Later it is the administrator's, and an upgrade neither changes it nor asks.
if [ -z "$before" ] && [ ! -e /etc/pgwicket/pgwicket.yaml ]; then
	install -D -m 0644 /usr/share/pgwicket/pgwicket.yaml /etc/pgwicket/pgwicket.yaml
fi

[ -d /run/systemd/system ] || exit 0
systemctl daemon-reload
[ -n "$before" ] || exit 0
systemctl --quiet is-active pgwicket.service || exit 0
# If the new version would not start with this configuration, the old one keeps running.
# Check as the account pgwicket, which owns the key.
if ! runuser -u pgwicket -- pgwicket check >/dev/null; then
	echo "pgwicket: the new version refuses the configuration; the old version keeps running until you restart it" >&2
	exit 0
fi
# With an admin.socket the new version takes over, with the open sessions.
if why=$(runuser -u pgwicket -- pgwicket upgrade --dry-run 2>&1 >/dev/null) && systemctl reload pgwicket.service; then
	exit 0
fi
echo "pgwicket: the gate restarts, which drains its sessions: ${why:-the new version could not take over; see journalctl -u pgwicket}" >&2
systemctl --no-block restart pgwicket.service
