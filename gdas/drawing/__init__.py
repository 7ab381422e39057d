"""Drawings of cells; the only importer of matplotlib."""
