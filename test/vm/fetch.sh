#!/bin/bash
# fetch.sh DIR puts what the virtual machines boot into DIR, once: a Debian kernel
# (boot/, lib/modules) and a static busybox (bin/). It says what is missing for the
# lab, with the command that brings it. No privileges are needed.
set -euo pipefail
dir=$1

missing=
for tool in qemu-system-x86_64:qemu-system-x86 mkfs.ext4:e2fsprogs; do
	PATH=$PATH:/usr/sbin:/sbin type -P "${tool%%:*}" >/dev/null || missing="$missing ${tool##*:}"
done
[ -z "$missing" ] || { echo "missing packages; run: sudo apt-get install -y --no-install-recommends$missing" >&2; exit 1; }

[ ! -e "$dir/boot" ] || exit 0
for tool in apt-get apt-cache dpkg-deb; do
	type -P "$tool" >/dev/null || {
		echo "$tool is missing: where there is no Debian, unpack its packages busybox-static and linux-image-*-cloud-amd64 into $dir" >&2; exit 1; }
done
# The package of that name is empty and depends on today's.
kernel=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '/Depends: linux-image/ {print $2; exit}')
[ -n "$kernel" ] || { echo "apt does not know linux-image-cloud-amd64; run: sudo apt-get update" >&2; exit 1; }
mkdir -p "$(dirname "$dir")"
fresh=$(mktemp -d "$dir.XXXXXX")
trap 'rm -rf "$fresh"' EXIT
cd "$fresh"
echo "fetching $kernel and busybox-static into $dir"
apt-get -qq -o APT::Sandbox::User=root download busybox-static "$kernel"
for package in *.deb; do
	dpkg-deb -x "$package" .
	rm "$package"
done
for place in bin lib; do # later releases of Debian have both below usr
	[ -e "$place" ] || mv "usr/$place" .
done
rm -rf usr
if [ -n "$(find lib/modules -name '*.ko.xz' -print -quit)" ]; then
	type -P xz >/dev/null || { echo "missing packages; run: sudo apt-get install -y xz-utils" >&2; exit 1; }
	find lib/modules -name '*.ko.xz' -exec xz -d {} +
fi
mv -T "$fresh" "$dir"
