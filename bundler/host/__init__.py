"""What a host is like, and whether it fits what is wanted of it."""
