"""Drawings of cells; no other folder of gdas imports matplotlib."""
