"""Plumbing that every room stands on: durable files, digests, threads, progress, sizes."""
