"""One cell in every form in which other projects write it, and cells that look alike."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from gdas.cnn.genotype import PUBLISHED

V1 = PUBLISHED["GDAS_V1"]
PAIRS = [list(V1.normal), list(V1.reduce or ())]
NESTED = [[tuple(edges[i : i + 2]) for i in range(0, 8, 2)] for edges in PAIRS]
WEIGHED = [[(o, s, 0.125 + i / 1000) for i, (o, s) in enumerate(edges)] for edges in PAIRS]
NESTED_WEIGHED = [[tuple(edges[i : i + 2]) for i in range(0, 8, 2)] for edges in WEIGHED]
TO_NODE = [[(o, i // 2 + 2, s) for i, (o, s) in enumerate(edges)] for edges in PAIRS]
FROM_NODE = [[(o, s, i // 2 + 2) for i, (o, s) in enumerate(edges)] for edges in PAIRS]
CONCAT = "range(2, 6)"


def namedtuple_text(cells: Sequence[object], more: str = "") -> str:
    normal, reduce = cells
    return (
        f"Genotype(normal={normal}, normal_concat={CONCAT}, reduce={reduce}, "
        f"reduce_concat={CONCAT}{more})"
    )


def fields(cells: Sequence[object]) -> dict[str, Any]:
    normal, reduce = cells
    concat = [2, 3, 4, 5]
    return {
        "normal": normal,
        "normal_concat": concat,
        "reduce": reduce,
        "reduce_concat": concat,
    }


PLAIN = namedtuple_text(PAIRS)
RENAMED = (
    PLAIN.replace("sep_conv", "dua_sepc").replace("dil_conv", "dil_sepc").replace("), (", "),\n(")
)
FORMS = {
    "as DARTS prints it": PLAIN,
    "concat as a list": PLAIN.replace(CONCAT, "[2, 3, 4, 5]"),
    "concat as list(range)": PLAIN.replace(CONCAT, "list(range(2, 6))"),
    "in a line of a log": f"2019-03-01 10:00:00,123 genotype = {PLAIN}\n",
    "twice in a log": f"epoch 0\n{PLAIN}\nepoch 1\n{PLAIN}\n",
    "without names": f"Genotype({PAIRS[0]}, {CONCAT}, {PAIRS[1]}, {CONCAT})",
    "grouped by node": namedtuple_text(NESTED),
    "grouped, authors' fields": namedtuple_text(NESTED, ", connectN=None, connects=None"),
    "with weights": namedtuple_text(WEIGHED),
    "grouped, with weights": namedtuple_text(NESTED_WEIGHED),
    "NumPy's numbers": namedtuple_text(NESTED_WEIGHED).replace("0.125", "np.float32(0.125)"),
    "NumPy's sources": PLAIN.replace("', 0)", "', np.int64(0))"),
    "tensors": namedtuple_text(WEIGHED).replace("0.125,", "tensor(0.125, device='cuda:0'),"),
    "with the node that an edge leads to": namedtuple_text(TO_NODE),
    "with the node in the last place": namedtuple_text(FROM_NODE),
    "the authors' dictionary of 2020": str(fields(NESTED_WEIGHED)),
    "that in a log": f"<<<--->>> The 249-th epoch : {fields(NESTED_WEIGHED)}\n",
    "the authors' names of 2020": RENAMED,
    "_asdict as JSON": json.dumps(fields(PAIRS)),
    "_asdict as JSON, grouped, with weights": json.dumps(fields(NESTED_WEIGHED), indent=1),
    "_asdict of an older Python": f"OrderedDict({[*fields(PAIRS).items()]})",
    "_asdict of Python 3.12": f"OrderedDict({fields(PAIRS)})",
    "a namedtuple as JSON": json.dumps(list(fields(PAIRS).values())),
    "in a record": json.dumps({"genotype": fields(PAIRS)}),
    "text in JSON": json.dumps({"genotype": PLAIN}),
    "in quotes": json.dumps(PLAIN),
    "without concat": json.dumps({"normal": PAIRS[0], "reduce": PAIRS[1]}),
    "our file": json.dumps(V1.to_json()),
    "with comments": PLAIN.replace("[(", "[  # the cell's (first) edge\n("),
    "with a byte-order mark": "\ufeff" + PLAIN,
}


FEW_EDGES = (  # FairDARTS_a: node 3 is left out, nodes 4 and 5 have one edge each
    "Genotype(normal=[('sep_conv_3x3', 2, 0), ('sep_conv_5x5', 2, 1), ('max_pool_3x3', 4, 0), "
    "('sep_conv_3x3', 5, 0)], normal_concat=range(2, 6), reduce=[('max_pool_3x3', 2, 0), "
    "('avg_pool_3x3', 2, 1), ('avg_pool_3x3', 3, 0), ('dil_conv_5x5', 3, 1), "
    "('avg_pool_3x3', 4, 0), ('sep_conv_5x5', 4, 1), ('skip_connect', 5, 0), "
    "('skip_connect', 5, 1)], reduce_concat=range(2, 6))"
)


NASNET = """
NASNet = Genotype(
  normal = [
    ('sep_conv_5x5', 1), ('sep_conv_3x3', 0), ('sep_conv_5x5', 0), ('sep_conv_3x3', 0),
    ('avg_pool_3x3', 1), ('skip_connect', 0), ('avg_pool_3x3', 0), ('avg_pool_3x3', 0),
    ('sep_conv_3x3', 1), ('skip_connect', 1),
  ],
  normal_concat = [2, 3, 4, 5, 6],
  reduce = [
    ('sep_conv_5x5', 1), ('sep_conv_7x7', 0), ('max_pool_3x3', 1), ('sep_conv_7x7', 0),
    ('avg_pool_3x3', 1), ('sep_conv_5x5', 0), ('skip_connect', 3), ('avg_pool_3x3', 2),
    ('sep_conv_3x3', 2), ('max_pool_3x3', 1),
  ],
  reduce_concat = [4, 5, 6],
)
"""
AMOEBANET = """
AmoebaNet = Genotype(
  normal = [
    ('avg_pool_3x3', 0), ('max_pool_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_5x5', 2),
    ('sep_conv_3x3', 0), ('avg_pool_3x3', 3), ('sep_conv_3x3', 1), ('skip_connect', 1),
    ('skip_connect', 0), ('avg_pool_3x3', 1),
  ],
  normal_concat = [4, 5, 6],
  reduce = [
    ('avg_pool_3x3', 0), ('sep_conv_3x3', 1), ('max_pool_3x3', 0), ('sep_conv_7x7', 2),
    ('sep_conv_7x7', 0), ('avg_pool_3x3', 1), ('max_pool_3x3', 0), ('max_pool_3x3', 1),
    ('conv_7x1_1x7', 0), ('sep_conv_3x3', 5),
  ],
  reduce_concat = [3, 4, 6]
)
"""


def changed(old: str, new: str) -> str:
    assert old in PLAIN
    return PLAIN.replace(old, new, 1)
