"""What ``pbrl train``, ``evaluate`` and ``data`` do with the words after them."""
