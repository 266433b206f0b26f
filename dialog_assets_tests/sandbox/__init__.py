"""Tests of the sandbox: the fictional world and the servers that play the outside."""
