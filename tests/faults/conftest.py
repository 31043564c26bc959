"""Runs that are broken off are compared with whole ones to the last bit."""

from tests.fresh_programs import fresh_programs

__all__ = ["fresh_programs"]
