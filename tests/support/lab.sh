#!/usr/bin/env bash
# Boots a real systemd, with journald, logind and a user manager, in throw-away namespaces.
#
# The host's own PID 1 need not be systemd. Needs root, overlayfs, a cgroup2 mount, util-linux, systemd
# (with libpam-systemd) and dbus (with dbus-user-session). tests/support/lab.rs drives it, lab-init.sh is
# its part inside the namespaces; by hand:
#
#   lab.sh check                     what is missing here, a line each; nothing when a lab can run
#   lab.sh up       NAME [opts]      boot; the disk of an earlier NAME is used again
#   lab.sh enter    NAME [who] -- CMD ARG..   run CMD inside as claw (-r: root; -t SEC: at most so long, then 124)
#   lab.sh run      NAME [who] -- CMD ARG..   the same in a transient unit with a cgroup of its own
#   lab.sh reboot   NAME             clean shutdown, then boot again on the same disk
#   lab.sh powercut NAME             kill -9 of everything, then boot again on the same disk
#   lab.sh down     NAME             clean shutdown
#   lab.sh kill     NAME             kill -9 of everything
#   lab.sh destroy  NAME             kill, and remove the disk
#   lab.sh log      NAME             the system's journal of this boot
#   lab.sh gc                        remove what dead owners left
#
# opts: --bind HOST:GUEST, --bind-ro HOST:GUEST (repeatable), --net host (default: only a loopback of its own)
# env:  LAB_STATE         directory of all labs; private, not on overlayfs (required)
#       LAB_OWNER         pid of the process that the lab must not outlive
#       LAB_STOP_TIMEOUT  seconds for a clean shutdown (30), LAB_BOOT_TIMEOUT for a boot (60)
# Exit: 125 when lab.sh itself failed.
#
# Inside, / is an overlay over the host's / whose changes die with the boot; /tmp, /run, /var/tmp and /var/log
# are private. Kept over reboot and powercut: /etc, /home/claw, /var/lib/systemd, /var/log/journal. The home is
# also visible inside under its path on the host. A powercut is the death of all processes: the page cache
# survives, so a missing fsync is not found by it.
set -u -o pipefail
SELF=$(readlink -f "${BASH_SOURCE[0]}")
LAB_USER=claw LAB_UID=1001
: "${LAB_STOP_TIMEOUT:=30}" "${LAB_BOOT_TIMEOUT:=60}"
SYSTEMD=/lib/systemd/systemd
[ -x $SYSTEMD ] || SYSTEMD=/usr/lib/systemd/systemd

die() { echo "lab.sh: $*" >&2; exit 125; }
say() { echo "lab.sh: $*" >&2; }
now_ms() { local t=$EPOCHREALTIME; echo $((${t/./} / 1000)); }
cgroup2() { awk '$3 == "cgroup2" { print $2; exit }' /proc/self/mounts; }

need_name() {
  [ -n "${LAB_STATE:-}" ] || die "LAB_STATE is not set"
  [[ ${1:-} =~ ^[A-Za-z0-9][A-Za-z0-9_.-]{0,40}$ ]] || die "bad or missing NAME: '${1:-}'"
  NAME=$1 D=$LAB_STATE/$1
}

# ---- what a lab needs of the host

check() {
  [ "$(id -u)" = 0 ] || echo "root (this is uid $(id -u))"
  [ -x $SYSTEMD ] || echo "systemd ($SYSTEMD)"
  local p
  for p in systemctl systemd-run journalctl dbus-daemon unshare nsenter setpriv pivot_root flock timeout awk; do
    command -v $p >/dev/null || echo "the program $p"
  done
  [ -e /usr/lib/systemd/user/dbus.socket ] || echo "a session bus for user managers (package dbus-user-session)"
  compgen -G '/lib/*/security/pam_systemd.so' >/dev/null || compgen -G '/lib*/security/pam_systemd.so' >/dev/null ||
    echo "pam_systemd.so (package libpam-systemd)"
  [ -n "$(cgroup2)" ] || echo "a mounted cgroup2"
  [ "$(id -u)" = 0 ] || return 0
  # The rest cannot be read off a list: it is tried.
  unshare --mount --propagation private --pid --uts --ipc --cgroup --fork bash -c '
    mount -t tmpfs lab /mnt && mkdir /mnt/{u,w,r} && mount -t overlay -o lowerdir=/,upperdir=/mnt/u,workdir=/mnt/w lab /mnt/r
  ' >/dev/null 2>&1 || echo "the right to make namespaces and an overlay over / (a privileged container, or no container)"
  local c
  c=$(cgroup2)/lab-check-$$
  if mkdir "$c" 2>/dev/null; then rmdir "$c"; else echo "the right to make a cgroup in $(cgroup2)"; fi
}

# ---- the disk of a lab, on the host

MASKED="getty.target console-getty.service systemd-timesyncd.service systemd-udevd.service systemd-udevd-control.socket
  systemd-udevd-kernel.socket systemd-udev-trigger.service systemd-hwdb-update.service ldconfig.service
  systemd-update-done.service systemd-firstboot.service systemd-machine-id-commit.service systemd-modules-load.service
  systemd-sysctl.service systemd-binfmt.service proc-sys-fs-binfmt_misc.automount proc-sys-fs-binfmt_misc.mount
  systemd-repart.service systemd-random-seed.service systemd-pcrphase-sysinit.service systemd-pcrphase.service
  systemd-pstore.service systemd-update-utmp.service systemd-sysusers.service kmod-static-nodes.service
  systemd-tmpfiles-setup-dev.service dev-hugepages.mount dev-mqueue.mount sys-fs-fuse-connections.mount
  sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount systemd-ask-password-console.path
  systemd-ask-password-wall.path systemd-networkd.service systemd-networkd.socket systemd-resolved.service
  systemd-oomd.service apparmor.service snapd.service snapd.socket apt-daily.timer apt-daily-upgrade.timer
  dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer man-db.timer postgresql.service
  docker.service docker.socket containerd.service ssh.service ssh.socket cron.service systemd-remount-fs.service
  tmp.mount"

make_disk() {
  local P=$D/persist E=$D/persist/etc u
  [ -e "$P/.made" ] && return
  mkdir -p "$P"/{home,etc,etc.work,var-lib-systemd/linger,journal} "$E"/systemd/{system,journald.conf.d} || die "cannot write $P"
  chmod 755 "$D" "$P" "$E"
  tr -d - </proc/sys/kernel/random/uuid >"$E/machine-id"
  echo "lab-$NAME" >"$E/hostname"
  : >"$E/fstab"
  printf '127.0.0.1 localhost lab-%s\n::1 localhost\n' "$NAME" >"$E/hosts"
  # The host's users without their passwords, and claw in the place of whoever has its uid there.
  awk -F: -v u=$LAB_USER -v id=$LAB_UID '$1 != u && $3 != id' /etc/passwd >"$E/passwd"
  awk -F: -v u=$LAB_USER -v id=$LAB_UID '$1 != u && $3 != id' /etc/group >"$E/group"
  echo "$LAB_USER:x:$LAB_UID:$LAB_UID::/home/$LAB_USER:/bin/bash" >>"$E/passwd"
  echo "$LAB_USER:x:$LAB_UID:" >>"$E/group"
  (umask 077; awk -F: '{ print $1 ":*:19000:0:99999:7:::" }' "$E/passwd" >"$E/shadow")
  chown $LAB_UID:$LAB_UID "$P/home"
  chmod 750 "$P/home"
  : >"$P/var-lib-systemd/linger/$LAB_USER"        # claw's user manager starts at boot
  [ -d /var/lib/systemd/catalog ] && cp -a /var/lib/systemd/catalog "$P/var-lib-systemd/"
  chgrp systemd-journal "$P/journal" 2>/dev/null
  chmod 2755 "$P/journal"
  printf '[Journal]\n%s\n' Storage=persistent SplitMode=uid ReadKMsg=no Audit=no ForwardToSyslog=no \
    ForwardToConsole=no ForwardToWall=no | awk '!seen[$0]++' >"$E/systemd/journald.conf.d/lab.conf"
  cat >"$E/systemd/system/lab.target" <<-X
	[Unit]
	Requires=basic.target
	Wants=dbus.service systemd-logind.service systemd-user-sessions.service
	After=basic.target dbus.service systemd-logind.service systemd-user-sessions.service
	AllowIsolate=yes
	X
  ln -sfn lab.target "$E/systemd/system/default.target"
  for u in $MASKED; do ln -sfn /dev/null "$E/systemd/system/$u"; done
  : >"$P/.made"
}

# ---- PID 1 seen from the host: pid and start time, so that a recycled pid is never hit

stat_field() { # stat_field PID N: N counts from the state letter, 1
  local s
  s=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  set -- "$2" ${s##*) }
  shift "$1"
  echo "$1"
}
init_pid() {
  local p started
  read -r p started 2>/dev/null <"$D/run/init" || return 1
  [ -n "$p" ] && [ "$(stat_field "$p" 20)" = "$started" ] && [ "$(stat_field "$p" 1)" != Z ] && echo "$p"
}
wait_gone() { # wait_gone SECONDS: until PID 1 is gone and its holder has noted it
  local end=$(($(now_ms) + $1 * 1000))
  while init_pid >/dev/null; do
    [ "$(now_ms)" -lt $end ] || return 1
    sleep 0.03
  done
  end=$(($(now_ms) + 3000))
  while [ ! -e "$D/run/exit" ] && [ "$(now_ms)" -lt $end ] && kill -0 "$(cat "$D/run/holder" 2>/dev/null)" 2>/dev/null; do
    sleep 0.02
  done
}
cg_path() { echo "$(cgroup2)/lab-$(printf %s "$D" | cksum | cut -d' ' -f1)-$NAME"; }
cg_clean() { # the lab's cgroups, the deepest first
  local c i
  c=$(cg_path)
  for i in 1 2 3 4 5 6 7 8 9 10; do
    [ -d "$c" ] || return 0
    [ ! -w "$c/cgroup.kill" ] || echo 1 >"$c/cgroup.kill" 2>/dev/null
    find "$c" -depth -type d -exec rmdir {} + 2>/dev/null
    [ ! -d "$c" ] || sleep 0.1
  done
  [ ! -d "$c" ] || say "cgroup $c is not empty"
}

# ---- commands inside

PATH_ENV=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
USER_ENV=("HOME=/home/$LAB_USER" "USER=$LAB_USER" "LOGNAME=$LAB_USER" SHELL=/bin/bash "XDG_RUNTIME_DIR=/run/user/$LAB_UID"
  "DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/$LAB_UID/bus")
inside() {
  local p time=()
  p=$(init_pid) || die "$NAME is not up"
  [ -e /proc/self/ns/time ] && time=(-T)
  nsenter -t "$p" "${time[@]}" -m -u -i -n -p -C -r -w -- "$@"
}
as_root() { inside env -i "$PATH_ENV" LANG=C.UTF-8 HOME=/root "$@"; }
as_user() {
  inside setpriv --reuid $LAB_UID --regid $LAB_UID --init-groups env -i -C "/home/$LAB_USER" "$PATH_ENV" LANG=C.UTF-8 "${USER_ENV[@]}" "$@"
}
command_options() { # sets AS and CMD
  AS=$LAB_USER
  local limit=
  while [ $# -gt 0 ]; do
    case $1 in
    -r) AS=root; shift ;;
    -t) limit=$2; shift 2 ;;
    --) shift; break ;;
    *) die "unknown option $1" ;;
    esac
  done
  [ $# -gt 0 ] || die "no command"
  CMD=("$@")
  [ -z "$limit" ] || CMD=(timeout -k 3 "$limit" "$@")
}
run_unit() { # systemd-run expands $X in arguments, which cannot be turned off before 254
  local options=(--quiet --pipe --wait --collect --service-type=exec -E LANG=C.UTF-8) e
  if [ "$AS" != root ]; then
    options+=(--uid="$AS" -p "WorkingDirectory=/home/$AS")
    for e in "${USER_ENV[@]}"; do options+=(-E "$e"); done
  fi
  as_root systemd-run "${options[@]}" -- "${CMD[@]//\$/\$\$}"
}

# ---- up and down

boot_options() {
  while [ $# -gt 0 ]; do
    case $1 in
    --bind) printf 'rw\t%s\t%s\n' "${2%%:*}" "${2#*:}"; shift 2 ;;
    --bind-ro) printf 'ro\t%s\t%s\n' "${2%%:*}" "${2#*:}"; shift 2 ;;
    --net) echo "$2" >"$D/run/net"; shift 2 ;;
    *) die "unknown option $1" ;;
    esac
  done >"$D/run/binds"
}
boot() {
  local since holder p= end
  since=$(now_ms)
  end=$((since + LAB_BOOT_TIMEOUT * 1000))
  make_disk
  CG=$(cg_path) NET=$(cat "$D/run/net" 2>/dev/null)
  cg_clean
  mkdir -p "$CG" || die "cannot create $CG"
  rm -f "$D"/run/{init,host_pid,exit,holder}
  export NAME D CG NET LAB_STATE LAB_USER SYSTEMD
  setsid bash "$(dirname "$SELF")/lab-init.sh" hold </dev/null >>"$D/run/boot.log" 2>&1 9>&- &
  holder=$!
  while :; do
    [ ! -e "$D/run/exit" ] || { cg_clean; tail -5 "$D/run/boot.log" >&2; die "$NAME: PID 1 ended with $(cat "$D/run/exit")"; }
    [ "$(now_ms)" -lt $end ] || { kill_all; kill -9 $holder 2>/dev/null; die "$NAME: no user manager after ${LAB_BOOT_TIMEOUT} s"; }
    if [ -z "$p" ] && [ -e "$D/run/host_pid" ]; then
      p=$(cat "$D/run/host_pid")
      echo "$p $(stat_field "$p" 20)" >"$D/run/init"
    fi
    [ -n "$p" ] && [ -S "/proc/$p/root/run/user/$LAB_UID/systemd/private" ] && [ -S "/proc/$p/root/run/user/$LAB_UID/bus" ] &&
      [ "$(as_root systemctl is-active user@$LAB_UID.service 2>/dev/null)" = active ] && break
    sleep 0.03
  done
  say "$NAME up in $(($(now_ms) - since)) ms (PID 1 is $p)"
}
stop() { # stop SIGNAL: ask PID 1, then kill
  local p since
  since=$(now_ms)
  p=$(init_pid) || die "$NAME is not up"
  kill -s "$1" "$p"
  wait_gone "$LAB_STOP_TIMEOUT" || { kill_all; die "$NAME was not down after $LAB_STOP_TIMEOUT s and was killed"; }
  cg_clean
  say "$NAME down in $(($(now_ms) - since)) ms"
}
kill_all() {
  local p
  if p=$(init_pid); then kill -9 "$p"; wait_gone 10 || say "$p does not die"; fi
  cg_clean
  rm -f "$D/run/init"
}
destroy() {
  kill_all
  rm -rf --one-file-system "${LAB_STATE:?}/${NAME:?}"
}
gc() {
  local d owner
  for d in "$LAB_STATE"/*/; do
    need_name "$(basename "$d")"
    owner=$(cat "$D/run/owner" 2>/dev/null) || continue # started by hand, or just being made
    [ -e "$D/run/keep" ] || kill -0 "$owner" 2>/dev/null || { say "gc: $NAME"; destroy; }
  done
}

verb=${1:-help}
case $verb in
check) check; exit ;;
gc) [ -n "${LAB_STATE:-}" ] || die "LAB_STATE is not set"; shopt -s nullglob; gc; exit ;;
up | reboot | powercut | down | kill | destroy | enter | run | log) need_name "${2:-}"; shift 2 ;;
*) sed -n '2,/^set -u/p' "$SELF" | sed '$d; s/^# \{0,1\}//'; exit 2 ;;
esac
case $verb in
up | reboot | powercut)
  mkdir -p "$D/run" || die "cannot create $D"
  exec 9>"$D/run/lock"
  flock -n 9 || die "$NAME is being started or stopped by another lab.sh"
  [ -z "${LAB_OWNER:-}" ] || echo "$LAB_OWNER" >"$D/run/owner" ;;
esac
case $verb in
up) ! init_pid >/dev/null || die "$NAME is already up"; boot_options "$@"; boot ;;
reboot) stop RTMIN+5; boot ;;
powercut) init_pid >/dev/null || die "$NAME is not up"; kill_all; boot ;;
down) stop RTMIN+4 ;;
kill) kill_all ;;
destroy) destroy ;;
enter) command_options "$@"; if [ "$AS" = root ]; then as_root "${CMD[@]}"; else as_user "${CMD[@]}"; fi ;;
run) command_options "$@"; run_unit ;;
log) as_root journalctl -b --no-pager -o short-monotonic ;;
esac
