#!/bin/bash
# Boots a systemd of its own as process 1 of a machine made of namespaces: its file
# system is this machine's, below an overlay that is lost when it goes down, with
# DIR/NAME/tree laid over it. /etc/hapair, /var/lib/hapair, /disks and the journal are
# kept in DIR/NAME. Called by the test, as root: boot.sh DIR NAME
set -euo pipefail
export dir=$1/$2 name=$2

# A cgroup of its own, which is the root of all that it sees.
for h in /sys/fs/cgroup/unified /sys/fs/cgroup; do [ -e $h/cgroup.procs ] && break; done
group=$h/systemdlab-$$
mkdir "$group"
echo "$group" >"$dir/cgroup"
echo $$ >"$group/cgroup.procs"

exec unshare --mount --uts --ipc --cgroup --net --pid --fork --kill-child bash -euo pipefail -c '
mount --make-rprivate /
root=$dir/root
mkdir -p "$root" "$dir/over"
mount -t tmpfs tmpfs "$dir/over"
mkdir "$dir/over/upper" "$dir/over/work"
mount -t overlay overlay -o "lowerdir=/,upperdir=$dir/over/upper,workdir=$dir/over/work" "$root"

mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/srv"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
for d in null zero full random urandom tty fuse loop-control; do cp -a "/dev/$d" "$root/dev/"; done
for i in $(seq 0 63); do mknod -m 660 "$root/dev/loop$i" b 7 "$i"; done
ln -s pts/ptmx "$root/dev/ptmx"; ln -s /proc/self/fd "$root/dev/fd"

# What this machine starts is not for this one.
etc=$root/etc/systemd/system
rm -rf "$etc" "$root/etc/hapair"; mkdir -p "$etc"
for u in systemd-timesyncd systemd-resolved systemd-networkd systemd-udevd systemd-udev-trigger systemd-sysctl systemd-modules-load \
	systemd-update-utmp ldconfig; do ln -s /dev/null "$etc/$u.service"; done
for u in systemd-udevd-control.socket systemd-udevd-kernel.socket timers.target; do ln -s /dev/null "$etc/$u"; done
: >"$root/etc/fstab"
echo "$name" >"$root/etc/hostname"
hostname "$name"
rm -f "$root/etc/machine-id"; cp "$dir/machine-id" "$root/etc/machine-id"
cp -a "$dir/tree/." "$root/"

for d in etc/hapair var/lib/hapair disks var/log/journal; do
	mkdir -p "$root/$d" "$dir/keep/$d"
	mount --bind "$dir/keep/$d" "$root/$d"
done

cd "$root"; mkdir .old
pivot_root . .old
umount -l /.old; rmdir /.old
exec env -i container=systemdlab PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --log-target=journal --show-status=no
'
