#!@BUSYBOX@ sh
# Init of the virtual machine. Messages of the kernel and of this script go to the first serial
# line; the command's output and two marker lines go to the second.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb

bb=@BUSYBOX@
$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs devtmpfs /dev
# Existing names, including the real tools, are not overwritten.
$bb mkdir -p /bin /sbin /usr/bin /usr/sbin
$bb --install -s 2>/dev/null

mkdir -p /dev/pts /dev/shm /var/run/netns
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
# /tmp and /run get no tmpfs: the root is in memory anyway, and files packed there stay visible.
chmod 1777 /tmp

while read -r module; do
    insmod "$module" || echo "init: cannot load $module"
done </modules/order

# Emulated interrupts take so long that the kernel would sample less and less.
echo 0 >/proc/sys/kernel/perf_cpu_time_max_percent

ip link set lo up
if [ -e /sys/class/net/eth0 ]; then
    # QEMU's user-mode network; only its gateway answers.
    ip addr add 10.0.2.15/24 dev eth0
    ip link set eth0 up
fi

exec 9>@CHANNEL@
stty -F @CHANNEL@ raw -echo
echo "xtask-vm: ready" >&9
# Through cat: on a terminal the command would colour and redraw its output. Through descriptor 3
# and in a subshell: messages of this shell, such as "Killed", are not the command's output.
{
    (exec sh /command >&3 2>&3 3>&- 9>&-)
    echo $? >/run/command-status
} 3>&1 >/dev/console </dev/null | cat >&9
printf '\nxtask-vm: exit %s\n' "$(cat /run/command-status)" >&9
# Closing the serial line waits until its output is drained.
exec 9>&-
poweroff -f
