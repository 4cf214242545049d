"""What a developer's machine needs: the embedded cluster, the installation, the local image."""
