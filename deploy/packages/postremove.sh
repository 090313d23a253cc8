#!/bin/sh
# The account stays, as others may own files of its number later on.
set -e

[ -d /run/systemd/system ] || exit 0
systemctl daemon-reload
