#!/usr/bin/env bash
# From lab.sh to PID 1 of the lab: hold (on the host) starts init (in the new namespaces), which becomes systemd.
# What lab.sh knows comes by environment: NAME, D (the lab's directory), CG (its cgroup), NET, LAB_USER, SYSTEMD.
set -u -o pipefail
SELF=$(readlink -f "${BASH_SOURCE[0]}")

bind_all() { # bind_all ROOT: what --bind and --bind-ro named
  local mode from to
  while IFS=$'\t' read -r mode from to; do
    if [ -d "$from" ]; then mkdir -p "$1$to"; else mkdir -p "$(dirname "$1$to")"; [ -e "$1$to" ] || : >"$1$to"; fi
    mount --bind "$from" "$1$to"
    if [ "$mode" = ro ]; then mount -o remount,bind,ro "$1$to"; fi
  done <"$D/run/binds"
}

case ${1:-} in
hold) # the parent of PID 1: notes how it ended, and ends it with its owner
  echo $$ >"$D/run/holder"
  spaces=(--mount --pid --uts --ipc)
  [ "$NET" = host ] || spaces+=(--net)
  if [ -e /proc/self/ns/time ]; then  # the monotonic clock starts near 0, as after a boot
    read -r up _ </proc/uptime
    spaces+=(--time --monotonic "-${up%.*}" --boottime "-${up%.*}")
  fi
  setpriv --pdeathsig KILL unshare "${spaces[@]}" --propagation private --fork --kill-child=KILL bash "$SELF" init &
  top=$!
  if [ -n "${LAB_OWNER:-}" ]; then
    (
      while kill -0 $top 2>/dev/null; do
        kill -0 "$LAB_OWNER" 2>/dev/null || { bash "$(dirname "$SELF")/lab.sh" destroy "$NAME"; exit; }
        sleep 0.5
      done
    ) &
  fi
  wait $top 2>/dev/null
  rc=$?
  echo $rc >"$D/run/exit"
  exit $rc ;;
init)
  set -e
  read -r host_pid _ </proc/self/stat # /proc is still the host's
  echo "$host_pid" >"$D/run/host_pid.tmp"
  mv "$D/run/host_pid.tmp" "$D/run/host_pid"
  echo $$ >"$CG/cgroup.procs"
  exec unshare --cgroup bash "$SELF" spaces ;;
spaces)
  set -e
  mount --make-rprivate /
  M=$D/run/mnt R=$D/run/mnt/root
  mkdir -p "$M"
  mount -t tmpfs -o mode=755,size=4g lab "$M"
  mkdir "$M"/{up,work,root}
  mount -t overlay -o lowerdir=/,upperdir="$M/up",workdir="$M/work" lab-root "$R"
  mount -t overlay -o lowerdir=/etc,upperdir="$D/persist/etc",workdir="$D/persist/etc.work" lab-etc "$R/etc"
  for d in run tmp var/tmp var/log; do
    mkdir -p "$R/$d"
    mount -t tmpfs -o nosuid,nodev,mode=1777,size=1g lab "$R/$d"
  done
  chmod 755 "$R/run" "$R/var/log"
  mkdir -p "$R/run/lock" "$R/run/host" "$R/var/log/journal" "$R/home/$LAB_USER"
  echo lab >"$R/run/host/container-manager"
  mount --bind "$D/persist/home" "$R/home/$LAB_USER"
  mount --bind "$D/persist/journal" "$R/var/log/journal"
  mount --bind "$D/persist/var-lib-systemd" "$R/var/lib/systemd"
  # What belongs to the host's kernel is for reading only.
  mount -t proc -o nosuid,nodev,noexec proc "$R/proc"
  for p in sys irq bus sysrq-trigger; do
    [ -e "$R/proc/$p" ] || continue
    mount --bind "$R/proc/$p" "$R/proc/$p"
    mount -o remount,bind,ro,nosuid,nodev,noexec "$R/proc/$p"
  done
  if [ "$NET" = host ]; then
    mount --bind /sys "$R/sys"
    mount -o remount,bind,ro "$R/sys"
  else
    ip link set lo up
    mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$R/sys"
  fi
  mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$R/sys/fs/cgroup"
  # A new boot id for each boot; without it the journal takes all boots for one.
  cat /proc/sys/kernel/random/uuid >"$M/boot_id"
  mount --bind "$M/boot_id" "$R/proc/sys/kernel/random/boot_id"
  mount -o remount,bind,ro,nosuid,nodev,noexec "$R/proc/sys/kernel/random/boot_id"
  mount -t tmpfs -o nosuid,mode=755,size=64m lab-dev "$R/dev"
  for n in null zero full random urandom tty; do : >"$R/dev/$n"; mount --bind "/dev/$n" "$R/dev/$n"; done
  mkdir "$R"/dev/{pts,shm,mqueue}
  mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$R/dev/pts"
  mount -t tmpfs -o nosuid,nodev,mode=1777,size=1g lab "$R/dev/shm"
  mount -t mqueue mqueue "$R/dev/mqueue"
  ln -s pts/ptmx "$R/dev/ptmx"
  ln -s /proc/self/fd "$R/dev/fd"
  ln -s fd/0 "$R/dev/stdin"; ln -s fd/1 "$R/dev/stdout"; ln -s fd/2 "$R/dev/stderr"
  bind_all "$R"
  mkdir -p "$R$D/persist/home"
  mount --bind "$D/persist/home" "$R$D/persist/home"
  hostname "lab-$NAME"
  cd "$R"
  mkdir -p run/old
  pivot_root . run/old
  cd /
  umount -l run/old
  rmdir run/old
  ulimit -Hn 524288 2>/dev/null || true
  ulimit -Sn 1024
  exec setsid env -i container=lab PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
    setpriv --inh-caps -all --bounding-set -sys_module,-sys_time,-sys_rawio,-wake_alarm,-syslog,-mac_admin,-mac_override \
    $SYSTEMD --system --show-status=0 --log-target=journal ;;
esac
