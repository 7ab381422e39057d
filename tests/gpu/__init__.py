"""Checks and measurements on a card: see tests.gpu.__main__."""
