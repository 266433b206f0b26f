"""Tests: mirrors of the package, and end-to-end, fault and security suites."""
