#!/bin/sh
# generate.sh DIRECTORY [FLAG...]: write the manual page and the completions of the shells, which the
# packages bring, into a directory. The program that prints them is built for this machine, with the flags.
set -e

dir=$1
shift
mkdir -p "$dir"
env -u GOOS -u GOARCH CGO_ENABLED=0 "${GO:-go}" build "$@" -o "$dir/pgwicket" ./cmd/pgwicket
"$dir/pgwicket" man >"$dir/pgwicket.8"
for shell in bash zsh fish; do
	"$dir/pgwicket" completion "$shell" >"$dir/pgwicket.$shell"
done
