"""A search of image cells in which the drawn operation is data: each step one static CUDA graph.

Driven from the host, a step launches thousands of small kernels, which ones depends on the draw,
and a card waits for Python most of the time. Here the index of the drawn operation is read from
device memory by kernels whose launches are always the same. So a whole step, with draw,
augmentation, clipping, SGD and Adam, is captured once and replayed (gdas.cnn.graph.step).

- `tiles`, `forward`, `backward`: the kernels of a search cell. A program works on a tile of pixels
  of one edge and looks up what was drawn there. A convolution pass (ReLU, depthwise, pointwise) is
  one kernel; it writes its output before batch norm once, with each tile's mean and squared
  deviations, and who reads it normalises on load. Edges whose sources are ready share a launch.
- `depthwise`: the gradient of all depthwise weights of a cell, at once; `shares` adds the parts of
  weight gradients that programs leave.
- `fixed`: the fixed reduction cell with dense convolutions, which cuDNN runs as one kernel each.
- `cell`: those kernels in order, as one autograd node a cell. The gradient of a gate is the inner
  product of its term and the node's gradient, which is one of the sums that batch norm's own
  gradient needs. What is no search cell (stem, preprocessing, fixed cells, head) is PyTorch's.
- `flat`: all weights in one buffer, of which the supernet's parameters are views; SGD and clipping
  are a few launches over it. `logits`: draws, Eq. 7 and Adam on the device. `update`: augmentation
  and SGD as kernels. `tables`: an epoch's random numbers, drawn ahead from the same generators.
- `step`, `search`: the steps, their graphs and checkpoints; the search as a generator.

The floor: an edge's operation, on average, moves 3.4 feature maps forward and 9.5 back (8 back in
an alpha step), so that a batch of 128 in the paper's supernet moves some 10 GB in an iteration, 3.3
ms at 3 TB/s. What an iteration takes beyond that is latency, instructions, and PyTorch's kernels
around the cells.

Every number has one writer and every sum a fixed order (no atomic additions): the same bits from
run to run. Checkpoints are those of gdas.search.SearchSteps, and either goes on from the other's.
Sums are added in another order than PyTorch's, so the two agree to rounding, not bit for bit.
(They also differ if no path leads from a drawn operation to the loss, because a whole cell drew
`none`: an eager step leaves it without a gradient there, this one gives it a zero.)
"""
