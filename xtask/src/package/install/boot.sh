#!/bin/sh
# In the virtual machine: starts Debian from an archive with systemd as its init, in namespaces of
# its own, and prints what `try.sh` wrote there.
# Arguments: the archive, `try.sh`, a package, and a later version of it.
set -e
root=/debian
mkdir $root
mount -t tmpfs -o mode=755 debian $root
tar -xf "$1" -C $root
cp "$2" $root/try.sh
cp "$3" $root/first.deb
cp "$4" $root/second.deb
chmod 755 $root/try.sh
cat >$root/etc/systemd/system/try.service <<'UNIT'
[Service]
Type=oneshot
ExecStart=/bin/sh -c '/try.sh >/dev/shm/results 2>&1'
ExecStopPost=/bin/systemctl exit 0
UNIT
: >/dev/shm/results
/usr/bin/unshare --fork --pid --mount /bin/sh -c "
    mount -t proc proc $root/proc
    mount --rbind /sys $root/sys
    mount --rbind /dev $root/dev
    mount -t tmpfs -o mode=755 run $root/run
    cd $root
    mount --move . /
    exec chroot . /bin/env container=xtask /lib/systemd/systemd --unit=try.service
" || echo "systemd ended with status $?"
cat /dev/shm/results
