"""Kernels for the CPU, in C++: a pass of a cell reads its input once and writes once."""
