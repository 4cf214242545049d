"""A real Kubernetes cluster on one machine, from plain binaries, without docker.

etcd, API server, controller manager, scheduler and MinIO run as ordinary processes; each node is a tree of namespaces
(pid, mount, uts, ipc, net) with containerd, kubelet and kube-proxy. docs/embedded-cluster.md describes it.
"""
