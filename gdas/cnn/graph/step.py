"""The two steps of Algorithm 1 without the host: each one static CUDA graph, replayed.

All that a step reads or changes lies in tensors that stay where they are: weights, momenta, batch
norm statistics, logits and their moments, the epoch's random numbers, the step's number. On a CPU,
where Triton's interpreter runs the kernels, the same functions run without a graph.

Shapes: B batch, H and W height and width, N searched cells, E edges, K operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gdas.checkpoint import State
from gdas.cnn.cell import NONE, FixedReductionCell, SearchCell
from gdas.cnn.config import SearchConfig
from gdas.cnn.graph import update
from gdas.cnn.graph.cell import TILE, WARPS, GraphCell, apply_cell, graph_cell
from gdas.cnn.graph.fixed import fixed_cell
from gdas.cnn.graph.flat import UNIT, flatten_weights
from gdas.cnn.graph.logits import adam, corrections, device_logits, draw, relaxed_gradient
from gdas.cnn.graph.tables import TURNS, Table, draw_table
from gdas.cnn.norm import BatchNorm
from gdas.cnn.space import ImageSpace
from gdas.data.arrow import Images
from gdas.data.settings import ImageData
from gdas.metrics import EpochSums
from gdas.search import SearchSteps, Turn

WARM_UP = 2
"""Runs before a graph is captured, in which kernels are compiled and libraries make their plans."""


class GraphSteps:
    """What gdas.search.SearchSteps is to a host-driven search, with the same checkpoints.

    Args:
        precision: of the cells' matrix products, see GraphCell.
        tile, warps: of the cells' kernels, see gdas.cnn.graph.cell.
    """

    def __init__(
        self,
        config: SearchConfig,
        space: ImageSpace,
        *,
        precision: str = "tf32x3",
        tile: int = TILE,
        warps: int = WARPS,
    ) -> None:
        self.config = config
        self.space = space
        self.run = SearchSteps(config, space)
        self.device = space.device
        self.supernet = space.supernet
        self.flat = flatten_weights(self.supernet)
        for module in self.supernet.modules():
            if isinstance(module, BatchNorm):
                module.counts_on_host = False
        self.cells: dict[int, GraphCell] = {
            i: graph_cell(cell, i, self.flat, precision=precision, tile=tile, warps=warps)
            for i, cell in enumerate(self.supernet.cells)
            if isinstance(cell, SearchCell)
        }
        self.logits = device_logits(
            self.run.logits,
            [self.supernet.kinds[i] for i in self.cells],
            by_type=config.sampler.scope == "cell_type",
            device=self.device,
        )
        _, edges, operations = self.logits.draws
        self.edges = edges
        count = len(self.cells)
        # Rows of a multiple of 16 numbers, so that every cell's begins at an aligned address.
        room = -(-edges // 16) * 16
        self.operations_N = torch.zeros(count, room, dtype=torch.int32, device=self.device)
        firsts = 1 + torch.arange(count * edges, device=self.device) * operations
        self.first_entry_NE = firsts.view(count, edges)
        self.gates = [torch.ones(room, device=self.device) for _ in self.cells]
        self.first_read = 1 + count * edges * operations
        entries = self.first_read + 2 * count
        # Which edges read each of a cell's two inputs.
        sources_E = next(iter(self.cells.values())).sources
        self.reads_E2 = sources_E[:, None] == torch.arange(2, device=self.device)
        # Which operations have a gradient, and which have a momentum; entry 0 is all the others.
        self.moved, self.stepped = (
            torch.zeros(entries, dtype=torch.int32, device=self.device) for _ in range(2)
        )
        self.moved[0] = 1
        self.step = torch.zeros(1, dtype=torch.int64, device=self.device)
        self.lr, self.tau = (torch.ones(1, device=self.device) for _ in range(2))
        self.loss_2 = torch.zeros(2, dtype=torch.float64, device=self.device)
        self.hits_2 = torch.zeros(2, dtype=torch.int64, device=self.device)
        self.corrections_S2 = torch.ones(space.steps(0), 2, device=self.device)
        self.alpha_steps = 0
        self.tables: dict[Turn, Table] = {}
        self.graphs: dict[tuple[Turn, int, bool, bool], torch.cuda.CUDAGraph] = {}
        self.pool: object = None
        images = space.halves.images
        assert isinstance(images, Images)
        self.images_NCHW = images.images_NCHW.contiguous()
        self.labels_N = images.labels_N
        data = config.data
        assert isinstance(data, ImageData)
        std, mean = torch.tensor(data.std), torch.tensor(data.mean)
        self.scale_C = (1.0 / (255.0 * std)).to(self.device)
        self.shift_C = (mean / std).to(self.device)

    # One epoch.

    def draw_epoch(self, epoch: int) -> dict[Turn, Table]:
        """An epoch's random numbers, on the CPU."""
        halves, draws = self.space.halves, self.logits.draws
        tables = {t: draw_table(self.config, halves, t, epoch, draws) for t in TURNS}
        return tables

    def begin_epoch(self, drawn: dict[Turn, Table], lr: float, tau: float) -> None:
        """Give the device an epoch's numbers."""
        for turn, table in drawn.items():
            if turn in self.tables:
                self.tables[turn].copy_(table)
            else:
                self.tables[turn] = table.to(self.device)
        steps = len(drawn["train"].sizes)
        self.corrections_S2.copy_(corrections(self.config.alpha, self.alpha_steps, steps))
        self.lr.fill_(lr)
        self.tau.fill_(tau)
        for counter in (self.step, self.loss_2, self.hits_2):
            counter.zero_()
        self.samples = dict.fromkeys(TURNS, 0)

    def take(self, step: int, turns: Sequence[Turn] = TURNS, *, held: bool = False) -> None:
        """The steps of an iteration; nothing waits for the device.

        Args:
            step: its number in the epoch; the device counts by itself.
            turns: what it does, in order (gdas.search.turns_of).
            held: the logits are only measured (alpha.warmup_epochs).
        """
        for turn in turns:
            size = self.tables[turn].sizes[step]
            self.samples[turn] += size
            self._replay(turn, size, held and turn == "valid", turn == turns[-1])
        self.alpha_steps += not held

    def end_epoch(self) -> dict[str, float]:
        """The epoch's metrics; waits for the device."""
        metrics: dict[str, float] = {}
        losses, hits = self.loss_2.tolist(), self.hits_2.tolist()
        for i, turn in enumerate(TURNS):
            sums = EpochSums()
            sums.loss, sums.correct = losses[i], hits[i]
            sums.samples = self.samples[turn]
            metrics |= sums.metrics(turn)
        return metrics

    # One step.

    def weight_step(self, size: int) -> None:
        """Update the drawn weights on a batch of D_T of this size."""
        w, flat = self.config.weights, self.flat
        operation_NE, _ = self._draw("train")
        flat.gradients.zero_()
        if w.undrawn == "skip":
            self.moved[1:].zero_()
        self._move(operation_NE)
        self._move_preprocessing(operation_NE)
        loss = self._loss("train", size, weights=True)
        found = torch.autograd.grad(loss, flat.ordinary)
        torch._foreach_copy_(flat.ordinary_gradients, found)
        norm = torch.linalg.vector_norm(flat.gradients)
        scale = (w.clip / (norm + 1e-6)).clamp(max=1.0)
        torch.maximum(self.stepped, self.moved, out=self.stepped)
        length = len(flat.weights)
        update.sgd[(-(-length // 1024),)](
            flat.weights, flat.gradients, flat.momenta, self.moved, flat.owners, scale, self.lr,
            w.weight_decay, w.momentum, length, w.nesterov, UNIT, BLOCK=1024,
        )  # fmt: skip

    def alpha_step(self, size: int, *, held: bool = False) -> None:
        """Update the logits on a batch of D_V of this size; measure only where they are held."""
        operation_NE, noisy_NEK = self._draw("valid")
        if held:
            with torch.no_grad():
                self._loss("valid", size, weights=False)
            return
        with _still(self.flat.ordinary):
            loss = self._loss("valid", size, weights=False)
            gates = torch.autograd.grad(loss, self.gates)
        gate_NE = torch.stack([gate[: self.edges] for gate in gates])
        relaxed_gradient(self.logits, gate_NE, operation_NE, noisy_NEK, self.tau)
        adam(self.logits, self.config.alpha, self.corrections_S2.index_select(0, self.step)[0])
        if self.config.weights.undrawn == "decay":
            self._move(operation_NE)

    def _draw(self, turn: Turn) -> tuple[Tensor, Tensor]:
        noise_DEK = self.tables[turn].noise_SDEK.index_select(0, self.step)[0]
        operation_NE, noisy_NEK = draw(self.logits, noise_DEK)
        self.operations_N[:, : self.edges].copy_(operation_NE)
        return operation_NE, noisy_NEK

    def _move(self, operation_NE: Tensor) -> None:
        """Note that these operations have a gradient from now on."""
        self.moved.scatter_(0, (self.first_entry_NE + operation_NE).flatten(), 1)

    def _move_preprocessing(self, operation_NE: Tensor) -> None:
        """The same of the preprocessing of inputs that an edge reads, which is not `none`."""
        read_N2 = ((operation_NE != NONE)[:, :, None] & self.reads_E2).any(dim=1)
        moved = self.moved[self.first_read :]
        torch.maximum(moved, read_N2.flatten().to(moved.dtype), out=moved)

    def _loss(self, turn: Turn, size: int, *, weights: bool) -> Tensor:
        images_BCHW, labels_B = self._batch(turn, size)
        scores_BK = self.scores(images_BCHW, weights=weights)
        loss = F.cross_entropy(scores_BK, labels_B)
        place = TURNS.index(turn)
        self.loss_2[place].add_(loss.detach().double(), alpha=size)
        self.hits_2[place].add_((scores_BK.detach().argmax(dim=1) == labels_B).sum())
        return loss

    def _batch(self, turn: Turn, size: int) -> tuple[Tensor, Tensor]:
        """The step's augmented images, channels-last, and labels."""
        data = self.config.data
        assert isinstance(data, ImageData)
        table = self.tables[turn]
        rows_B = table.rows_SB.index_select(0, self.step)[0, :size]
        moves_B5 = table.moves_SB5.index_select(0, self.step)[0, :size]
        _, channels, height, width = self.images_NCHW.shape
        out = torch.empty(size, height, width, channels, device=self.device)
        update.augment_batch[(-(-height * width // 256), size)](
            out, self.images_NCHW, rows_B, moves_B5, self.scale_C, self.shift_C, height, width,
            data.crop_padding, data.cutout, channels, data.flip, BLOCK=256,
        )  # fmt: skip
        return out.permute(0, 3, 1, 2), self.labels_N.index_select(0, rows_B)

    def scores(self, images_BCHW: Tensor, *, weights: bool) -> Tensor:
        """Class scores of what `operations_N` holds, as Supernet.forward gives."""
        net = self.supernet
        s0_BCHW, s1_BCHW = net.stem(images_BCHW)
        out_BCHW = s1_BCHW
        for i, cell in enumerate(net.cells):
            if i:
                s0_BCHW, s1_BCHW = s1_BCHW, F.relu(out_BCHW)
            if isinstance(cell, FixedReductionCell):
                out_BCHW = fixed_cell(cell, s0_BCHW, s1_BCHW)
                continue
            assert isinstance(cell, SearchCell)
            place = list(self.cells).index(i)
            c0_BCHW, c1_BCHW = cell.preprocess(s0_BCHW, s1_BCHW)
            gates, operations = self.gates[place], self.operations_N[place]
            gates.requires_grad_(torch.is_grad_enabled() and not weights)
            out_BCHW = apply_cell(
                self.cells[i], c0_BCHW, c1_BCHW, gates, operations, weights=weights
            )
        pooled_BC = net.pool(net.last_activation(out_BCHW)).flatten(1)
        scores: Tensor = net.classifier(pooled_BC)
        return scores

    # The graphs.

    def _replay(self, turn: Turn, size: int, held: bool, last: bool) -> None:
        key = (turn, size, held, last)
        run = self._function(*key)
        if self.device.type != "cuda":
            run()
            return
        if key not in self.graphs:
            self.graphs[key] = self._capture(run)
        self.graphs[key].replay()

    def _function(self, turn: Turn, size: int, held: bool, last: bool) -> Callable[[], None]:
        """A step, with the count of the iteration if it is the last of it."""

        def run() -> None:
            if turn == "train":
                self.weight_step(size)
            else:
                self.alpha_step(size, held=held)
            if last:
                self.step.add_(1)

        return run

    def _capture(self, run: Callable[[], None]) -> torch.cuda.CUDAGraph:
        """Capture a step; the runs that it takes before change nothing."""
        kept = [t.clone() for t in self._changing()]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                self.step.zero_()
                run()
        torch.cuda.current_stream().wait_stream(stream)
        for tensor, value in zip(self._changing(), kept, strict=True):
            tensor.copy_(value)
        torch.cuda.synchronize()
        if self.pool is None:
            self.pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):  # type: ignore[arg-type]
            run()
        return graph

    def _changing(self) -> list[Tensor]:
        """All tensors that a step changes and a later one reads."""
        logits, flat = self.logits, self.flat
        return [
            *(flat.weights, flat.momenta, self.moved, self.stepped, self.step),
            *(logits.values_TEK, logits.gradient_TEK, logits.mean_TEK, logits.square_TEK),
            *(self.loss_2, self.hits_2),
            *self.supernet.buffers(),
        ]

    # Checkpoints.

    def state(self, lr: float, *, held: bool = False) -> State:
        """The same as SearchSteps.state() gives: either goes on from the other's."""
        run, moved, stepped = self.run, self.moved.tolist(), self.stepped.tolist()
        momentum = self.config.weights.momentum
        run.weight_optimizer.param_groups[0]["lr"] = lr
        run.weight_optimizer.state.clear()
        for i, p in enumerate(run.parameters):
            entry = self.flat.entries[i]
            p.grad = self.flat.gradient_of[i] if moved[entry] else None
            if stepped[entry] and momentum:
                kept = _copy(self.flat.momentum_of[i], self.flat.layouts[i])
                run.weight_optimizer.state[p] = {"momentum_buffer": kept}
        self._logits_to_run(held=held)
        state = run.state()
        # Copies without the rest of the buffers that they are parts of.
        names = [name for name, _ in self.supernet.named_parameters()]
        layout_of = dict(zip(names, self.flat.layouts, strict=True))
        state["weights"] = {
            name: _copy(t, layout_of.get(name, t.stride())) for name, t in state["weights"].items()
        }
        return state

    def _logits_to_run(self, *, held: bool) -> None:
        run = self.run
        values, gradients, means, squares = (
            t.cpu().unbind(0)
            for t in (
                *(self.logits.values_TEK, self.logits.gradient_TEK),
                *(self.logits.mean_TEK, self.logits.square_TEK),
            )
        )
        for i, kind in enumerate(self.logits.types):
            a = run.logits[kind]
            a.data.copy_(values[i])
            a.grad = None if held else gradients[i].clone()
            if self.alpha_steps:
                run.alpha_optimizer.state[a] = {
                    "step": torch.tensor(float(self.alpha_steps)),
                    "exp_avg": means[i].clone(),
                    "exp_avg_sq": squares[i].clone(),
                }

    def load(self, state: State) -> None:
        """Go on from a state of SearchSteps or of this class."""
        run = self.run
        run.load(state)
        for i, p in enumerate(run.parameters):
            entry = self.flat.entries[i]
            if p.grad is not None:
                self.moved[entry] = 1
            momentum = run.weight_optimizer.state.get(p, {}).get("momentum_buffer")
            if momentum is not None:
                self.stepped[entry] = 1
                self.flat.momentum_of[i].copy_(momentum)
        for i, kind in enumerate(self.logits.types):
            a = run.logits[kind]
            self.logits.values_TEK[i].copy_(a.detach())
            moments = run.alpha_optimizer.state.get(a, {})
            if moments:
                self.alpha_steps = int(moments["step"])
                self.logits.mean_TEK[i].copy_(moments["exp_avg"])
                self.logits.square_TEK[i].copy_(moments["exp_avg_sq"])
        self.supernet.train()


def _copy(t: Tensor, layout: tuple[int, ...]) -> Tensor:
    return torch.empty_strided(t.shape, layout, dtype=t.dtype, device=t.device).copy_(t)


@contextmanager
def _still(parameters: list[nn.Parameter]) -> Iterator[None]:
    """No gradients of these inside the block."""
    for p in parameters:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in parameters:
            p.requires_grad_(True)
