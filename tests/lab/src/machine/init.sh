#!/bin/sh
# The first process of the machine, run by busybox from the boot image. The root of what follows is the host's, read only, with a
# memory file system over it: a program built there runs here, and what it writes is gone at the end. HOIST_RESULTS is a folder
# that both sides write to, under the same path; HOIST_AGENT is the program that does what the host asks from then on.
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
for m in virtio_pci 9pnet_virtio 9p overlay virtio_console; do modprobe "$m"; done
share() { mount -t 9p -o "trans=virtio,version=9p2000.L,msize=512000,$1" "$2" "$3"; }
share ro,cache=loose root /host || echo "FAIL  no root"
mount -t tmpfs over /over
mkdir -p /over/upper /over/work
mount -t overlay -o lowerdir=/host,upperdir=/over/upper,workdir=/over/work root /new || echo "FAIL  no overlay"
mkdir -p /new/lib/modules
[ -e "/new/lib/modules/$(uname -r)" ] || ln -s "$HOIST_MODULES/$(uname -r)" /new/lib/modules/
mount -t tmpfs run /new/run
mkdir -p "/new$HOIST_RESULTS"
share cache=none results "/new$HOIST_RESULTS" || echo "FAIL  no folder for results"
for d in dev proc sys; do mount --move /$d /new/$d; done
mkdir -p /new/dev/pts /new/dev/shm
mount -t devpts devpts /new/dev/pts
mount -t tmpfs shm /new/dev/shm
ln -sfn /proc/self/fd /new/dev/fd
ip link set lo up
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 HOIST_GUEST=1
exec switch_root /new "$HOIST_AGENT"
