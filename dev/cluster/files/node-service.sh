#!/bin/bash
# start|stop|kill|restart containerd|kubelet|kube-proxy, inside a node. `stop` keeps it down; after `kill` it comes back.
set -eu
. /run/node.env
record=/run/services/$2.pid wanted=/run/services/$2.wanted
alive() { [ -e "$record" ] && grep -qs "^State:.[^ZX]" "/proc/$(cat "$record")/status"; }
stop() {
  rm -f "$wanted"
  if alive; then
    kill "$(cat "$record")"
    for _ in $(seq 100); do alive || return 0; sleep 0.1; done
    kill -9 "$(cat "$record")"
  fi
}
start() {
  touch "$wanted"
  if alive; then return 0; fi
  case $1 in
    containerd) command=(containerd -c "$CONF/containerd.toml") ;;
    kubelet) command=("$BIN/kubelet" --config "$CONF/kubelet.yaml" --kubeconfig "$CONF/kubelet.kubeconfig"
      --hostname-override "$NODE" --node-ip "$IP" --node-labels "$LABELS" --v=2) ;;
    kube-proxy) command=("$BIN/kube-proxy" --config "$CONF/kube-proxy.yaml" --v=2) ;;
    *) echo "no service called $1: containerd, kubelet or kube-proxy" >&2; exit 64 ;;
  esac
  setsid "${command[@]}" >> "/var/log/$1.log" 2>&1 < /dev/null 9>&- &
  echo $! > "$record"
}
exec 9> "/run/services/$2.lock"
flock 9
case $1 in
  start) start "$2" ;;
  stop) stop ;;
  kill) if alive; then kill -9 "$(cat "$record")"; fi ;;
  restart) stop; start "$2" ;;
  *) echo "no action called $1: start, stop, kill or restart" >&2; exit 64 ;;
esac
