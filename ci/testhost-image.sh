#!/bin/sh
# mmdebstrap customize hook: make the root a freshly installed server, and leave the packages named in $PREFETCH in its
# apt cache, not installed.
set -eu
root=$1

# Each host makes its own SSH host keys and machine id at its first boot.
rm -f "$root"/etc/ssh/ssh_host_* "$root/var/lib/dbus/machine-id"
: > "$root/etc/machine-id"
install -d -m 0755 "$root/etc/systemd/system/ssh.service.d"
cat > "$root/etc/systemd/system/ssh.service.d/hostkeys.conf" <<'UNIT'
[Service]
ExecStartPre=
ExecStartPre=/usr/bin/ssh-keygen -A
ExecStartPre=/usr/sbin/sshd -t
UNIT

# Units that need a kernel of their own, or that would fetch on their own clock.
for unit in systemd-modules-load.service systemd-udevd.service sys-kernel-debug.mount sys-kernel-tracing.mount \
    dev-hugepages.mount dev-mqueue.mount getty@.service console-getty.service \
    apt-daily.timer apt-daily-upgrade.timer; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done

if [ -n "${PREFETCH:-}" ]; then
    # shellcheck disable=SC2086 # a list of package names
    chroot "$root" apt-get install --yes --download-only --no-install-recommends $PREFETCH
fi
