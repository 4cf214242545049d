#!/bin/bash
# The first process of one node, in pid, mount, uts, ipc and network namespaces of its own (dev/cluster/nodes.py starts it).
# Environment: NODE, DISK (its folder on the machine), BIN, CONF (rendered configuration), CGROUP, IP, GATEWAY,
# ROUTES ("CIDR,VIA CIDR,VIA"), LABELS, IMAGES (archives to import), FILES (this folder)
set -eu
hostname "$NODE"

# the disk at the usual paths; /run is empty after every start, as after a boot
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/netns /run/lock /run/containerd /run/cni /run/services
mkdir -p "$DISK"/{containerd,kubelet,log,sysctl,imported}
bind() { mkdir -p "$2"; mount --bind "$1" "$2"; }
bind "$DISK/containerd" /var/lib/containerd
bind "$DISK/kubelet" /var/lib/kubelet
bind "$DISK/log" /var/log
bind "$CONF/cni" /etc/cni/net.d

# the kubelet writes a few sysctls of the whole machine: it gets copies
for f in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
  [ -e "/proc/sys/$f" ] || continue
  mkdir -p "$DISK/sysctl/$(dirname $f)"
  cat "/proc/sys/$f" > "$DISK/sysctl/$f"
  mount --bind "$DISK/sysctl/$f" "/proc/sys/$f"
done

# /sys with this network namespace's devices, cgroups kept
mkdir -p /run/cgroups
mount --rbind /sys/fs/cgroup /run/cgroups
if mount -t sysfs sysfs /sys; then mount --rbind /run/cgroups /sys/fs/cgroup; fi
umount -l /run/cgroups
mount --make-rshared /

# the machine plugs one end of a cable in here as eth0
for _ in $(seq 200); do ip link show eth0 >/dev/null 2>&1 && break; sleep 0.05; done
ip link set lo up
ip addr add "$IP/24" dev eth0
ip link set eth0 up
ip route add default via "$GATEWAY"
for r in $ROUTES; do ip route add "${r%,*}" via "${r#*,}"; done
echo 1 > /proc/sys/net/ipv4/ip_forward
if [ -e /proc/sys/net/bridge/bridge-nf-call-iptables ]; then echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables; fi

# the node's root cgroup must exist before the kubelet starts
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then # version 2
  for c in cpu cpuset memory pids io hugetlb; do
    if grep -qw "$c" /sys/fs/cgroup/cgroup.controllers; then echo "+$c" > /sys/fs/cgroup/cgroup.subtree_control; fi
  done
  mkdir -p "/sys/fs/cgroup/$CGROUP"
else # version 1: in every hierarchy, with cpuset filled in
  for h in /sys/fs/cgroup/*/; do
    [ -e "$h/cgroup.procs" ] || continue
    case "$h" in */unified/) continue ;; esac
    mkdir -p "$h/$CGROUP"
    case "$h" in */cpuset/)
      cat "$h/cpuset.cpus" > "$h/$CGROUP/cpuset.cpus"
      cat "$h/cpuset.mems" > "$h/$CGROUP/cpuset.mems"
      echo 1 > "$h/$CGROUP/cgroup.clone_children" ;;
    esac
  done
fi

declare -p NODE BIN CONF IP LABELS > /run/node.env
service() { bash "$FILES/node-service.sh" "$@"; }
service start containerd
for _ in $(seq 400); do [ -S /run/containerd/containerd.sock ] && ctr version >/dev/null 2>&1 && break; sleep 0.05; done
for archive in "$IMAGES"/*.tar; do
  mark="$DISK/imported/$(basename "$archive")"
  [ "$mark" -nt "$archive" ] && continue
  ctr -n k8s.io images import "$archive"
  touch "$mark"
done
service start kubelet
service start kube-proxy

# what a service manager does: a service that died, and was not stopped on purpose, is started again; orphans are reaped
while :; do
  sleep 2 & wait $! || true
  for s in containerd kubelet kube-proxy; do
    if [ -e "/run/services/$s.wanted" ]; then service start "$s"; fi
  done
done
