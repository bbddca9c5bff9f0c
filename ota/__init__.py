"""Firmware over the air: images, releases, jobs, file streams, campaigns."""
