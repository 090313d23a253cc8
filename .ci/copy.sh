# Sourced by fresh and stranger: a copy of a Debian that is thrown away.
# shellcheck shell=bash

# enter TREE NET FUNCTION ARGUMENT...: call the function, in namespaces, with $root, a copy of
# the files of TREE that has the account reader, Go, and a checkout in the home directory of
# both reader and root. NET is host or none. Nothing outside of the copy changes: Go's
# caches are this machine's under an overlay, as are all files.
enter() {
	local stage net=()
	[ "$2" = host ] || net=(--net)
	stage=$(mktemp -d)
	# shellcheck disable=SC2064 # now
	trap "rmdir '$stage'" EXIT
	# shellcheck disable=SC2016 # the inner shell expands it
	if ! unshare --mount --pid --fork --uts --ipc "${net[@]}" /bin/bash -euc 'mount --make-rprivate / && mount -t tmpfs tmpfs "$1" &&
		mkdir "$1/changes" "$1/work" "$1/root" && mount -t overlay -o "lowerdir=/etc,upperdir=$1/changes,workdir=$1/work" overlay "$1/root"' probe "$stage"; then
		echo "$(basename "$0") is skipped: this machine allows no namespaces or no overlays"
		exit 0
	fi
	GOROOT=$(go env GOROOT) GOCACHE=$(go env GOCACHE) GOMODCACHE=$(go env GOMODCACHE)
	export GOROOT GOCACHE GOMODCACHE
	unshare --mount --pid --fork --kill-child --uts --ipc "${net[@]}" /bin/bash -euo pipefail -c \
		"$(declare -f prepare over as fail "$3"); prepare \"\$@\"; \"\${@:3}\"" copy "$1" "$stage" "${@:3}"
}

# over LOWER TARGET mounts a copy of a directory.
over() {
	n=$((${n-0} + 1))
	mkdir -p "$stage/changes$n" "$stage/work$n" "$2"
	mount -t overlay -o "lowerdir=$1,upperdir=$stage/changes$n,workdir=$stage/work$n" overlay "$2"
}

prepare() {
	local tree=$1 home dir
	stage=$2 root=$2/root
	mount --make-rprivate /
	mount -t tmpfs tmpfs "$stage"
	over "$tree" "$root"
	over "$GOROOT" "$root/usr/local/go"
	over "$GOCACHE" "$root/cache/build"
	over "$GOMODCACHE" "$root/cache/mod"
	mount -t proc proc "$root/proc"
	mount -t sysfs -o ro sysfs "$root/sys"
	mount --rbind /dev "$root/dev"
	mount -t tmpfs -o mode=755 tmpfs "$root/run"
	mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
	[ "$tree" = / ] || cp /etc/resolv.conf "$root/etc/"
	! command -v ip >/dev/null || ip link set lo up
	hostname debian

	# The first account that a Debian has. It may write to the caches.
	chroot "$root" useradd --create-home --shell /bin/bash reader
	for dir in "$root"/cache/build "$root"/cache/build/* "$root"/cache/mod "$root"/cache/mod/cache; do
		[ ! -d "$dir" ] || chmod 1777 "$dir"
	done
	chmod -f 0666 "$root"/cache/mod/cache/lock || true
	for home in root home/reader; do
		mkdir "$root/$home/pgwicket"
		git ls-files -z -co --exclude-standard | tar -c --null --ignore-failed-read -T - | tar -x -C "$root/$home/pgwicket" --no-same-owner
	done
	chroot "$root" chown -R reader: /home/reader
}

# as ACCOUNT COMMAND...: run it in the checkout of the account.
as() {
	local account=$1 home=/root
	shift
	[ "$account" = root ] || home=/home/$account
	echo "== $account: $*"
	chroot "$root" setpriv --reuid="$account" --regid="$account" --init-groups env -i -C $home/pgwicket HOME=$home USER="$account" LC_ALL=C.UTF-8 \
		PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		GOCACHE=/cache/build GOMODCACHE=/cache/mod GOTOOLCHAIN=local GOFLAGS=-buildvcs=false "$@"
}

fail() {
	echo "$(basename "$0"): $*" >&2
	exit 1
}
