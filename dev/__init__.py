"""What a developer's machine needs: the embedded cluster, the installation of packages and binaries, the local image."""
