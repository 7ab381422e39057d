"""Kernels for CPUs, in C++: float32, channels-last, batch norm in training mode.

A step of a search moves maps between memory and processor most of its time. So a kernel here does
as much as it can to a map while it has it:

- A map is written before its batch norm, once, and its statistics are summed on the way. Whoever
  reads it normalises on load (`Map`: values and norm).
- A separable pass (ReLU, depthwise, pointwise, batch norm) reads an image, works on it in cache and
  writes the result. Its backward pass does the same, with all gradients of its weights.
- A node of a cell is one sum of terms. The gradient of a gate is one of the sums that batch norm's
  own gradient needs.
- A cell's output stays in parts. What the next two cells make of it is computed in one pass over
  it, and its gradient is written once.

`kernels.h` is the interface: shapes and layouts. `vector.h` is the same source for AVX-512, AVX2,
NEON and others, and any number of channels. `parallel.h`: threads over images, and sums that depend
on neither their number nor their order. One source a concept: `separable`, `pooling`, `readers`
(preprocessing, FactorizedReduce), `reducing` (the fixed reduction cell), `convolution`
(tap by tap, `taps.h`, or in tiles, `winograd.h`), `sums`, and `cell`, which calls them for a whole
cell.

`interface` and `calls` are these as functions of tensors; `layers` says which modules they cover;
`plan` lists a cell in the flat structures that `cell.cpp` reads, `cell` makes it one autograd node,
`stem` a convolution that reads images; `pairs` is how their maps go through autograd; `walk` runs a
network, with plain cells between fused ones where something is not covered: a bias, a hook, a norm
that does not train, a soft or a per-image draw. Evaluation is plain. `build` compiles, `choice`
says whether.

Results differ from plain PyTorch's by rounding; they are about twice as close to float64.
"""
