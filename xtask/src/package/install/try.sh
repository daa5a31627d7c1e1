#!/bin/sh
# In a running Debian: installs /first.deb, uses it, upgrades to /second.deb, removes and purges it.
# Prints a line for each check.

check() {
    what=$1
    shift
    if "$@" >/tmp/output 2>&1; then
        echo "ok: $what"
    else
        echo "FAILED: $what (status $?)"
        tail -n 20 /tmp/output
    fi
}
not() { ! "$@"; }
says() { # TEXT COMMAND...
    text=$1
    shift
    "$@" 2>&1 | tee /tmp/said | grep -q -- "$text" || { cat /tmp/said; false; }
}
files() {
    find /etc /usr /opt /srv /root /var /run -xdev \
        -not -path '/var/lib/dpkg/*' -not -path '/var/log/*' -not -path '/var/cache/*' | sort
}
health() {
    for _ in $(seq 60); do
        bash -c 'exec 3<>/dev/tcp/127.0.0.1/9468 &&
            printf "GET /healthz HTTP/1.0\r\nHost: 127.0.0.1:9468\r\n\r\n" >&3 &&
            grep -q "200 OK" <&3' 2>/dev/null && return 0
        sleep 1
    done
    return 1
}
main_pid() { systemctl show --property=MainPID --value latency-user; }
unit=latency-user.service

files >/tmp/before
check 'installs' dpkg --install /first.deb
check 'the unit is not enabled' says disabled systemctl is-enabled $unit
check 'the socket is not enabled' says disabled systemctl is-enabled latency-user.socket
check 'the daemon does not run' says inactive systemctl is-active $unit
check 'doctor answers' says 'This kernel can time' latency-user doctor
check 'trace counts' latency-user trace --duration 2s
check 'manual pages are there' test -s /usr/share/man/man1/latency-user-trace.1.gz
check 'completions are a script' bash -n /usr/share/bash-completion/completions/latency-user
check 'no file has changed since it was packed' dpkg --verify latency-user

echo 'threshold = "2ms"' >/etc/latency-user.toml
check 'the daemon is enabled and started' systemctl enable --now $unit
check 'it is healthy' health
first=$(main_pid)
check 'trace follows it' latency-user trace --threshold 2ms --duration 2s
check 'it keeps what was' latency-user dump --last 1m
check 'its recordings are there' says hlog ls /var/lib/latency-user/recordings

check 'upgrades' dpkg --install --force-confold /second.deb
check 'the configuration is kept' grep -q 2ms /etc/latency-user.toml
check 'the daemon runs after the upgrade' health
check 'it is another process' test "$(main_pid)" != "$first"
check 'the new version is installed' says '+later' dpkg-query --show latency-user
check 'the recordings are kept' says hlog ls /var/lib/latency-user/recordings

check 'is removed' dpkg --remove latency-user
check 'the daemon has stopped' says inactive systemctl is-active $unit
check 'no process of it is left' not pgrep latency-user
check 'the configuration stays' test -e /etc/latency-user.toml
check 'the recordings stay' says hlog ls /var/lib/latency-user/recordings
check 'is purged' dpkg --purge latency-user
systemctl daemon-reload
files | grep -v '^/var/lib/systemd/\|^/run/systemd/' >/tmp/after
grep -v '^/var/lib/systemd/\|^/run/systemd/' /tmp/before >/tmp/expected
check 'nothing is left' diff /tmp/expected /tmp/after
check 'systemd knows no such unit' says 'not-found' systemctl show --property=LoadState $unit
