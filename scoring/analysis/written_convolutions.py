"""Convolutions written out as sums of products, which no layer grants.

Several views of one map (shifted, cut, pooled, permuted), each times its own numbers, and their sum: that is a
convolution. Its products are multiply-accumulates wherever they stand, each with the addition that takes it in. What
layers grant is for numbers that fold into these layers, and numbers of several views do not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from scoring.analysis.axes import Axes, elements_read
from scoring.graph.graph import Graph, Node
from scoring.graph.kinds import KINDS, Price

_PRODUCTS = frozenset({"Mul", "Div", "BatchNormalization", "PRelu", "LeakyRelu", "HardSigmoid", "DequantizeLinear"})
"""Kinds that multiply a map by numbers, or by another map."""
_BEGINNINGS = (Price.LAYER, Price.READ, Price.EXPRESSION)
"""What these make is a map of its own and no view."""
_MOST = 16
"""Maps that one value is a view of, followed apart; where there are more, they count as one."""

_MOST_PRODUCTS = 256
"""On the way of a view that was moved, between two layers; more are taken for terms."""


@dataclass(frozen=True)
class _View:
    """How a value came from a map: the products on the way, and a mark that differs where it was moved otherwise."""

    products: frozenset[str] = frozenset()
    moves: int = 0


_Views = Mapping[str, _View]


@dataclass
class Terms:
    """Outputs of the nodes of convolutions that are written out.

    macs: products, each with an addition. added: the additions of these. products: whose sum is a reduction, which is
    priced by itself.
    """

    macs: set[str] = field(default_factory=set)
    added: set[str] = field(default_factory=set)
    products: set[str] = field(default_factory=set)


def terms_of_convolutions(graph: Graph, axes: dict[str, Axes]) -> Terms:
    """The products that are terms of a convolution, and the sums that take them in."""
    return _Search(graph, axes).terms


class _Search:
    def __init__(self, graph: Graph, axes: dict[str, Axes]) -> None:
        self._graph, self._axes = graph, axes
        self._views: dict[str, _Views] = {graph.input: {graph.input: _View()}}
        self._joined: dict[str, frozenset[str]] = {}
        """Products of several views that lie beside each other in one value, so that a reduction may add them up."""
        self._one: dict[str, str] = {}
        self._marks: dict[tuple[object, ...], int] = {}
        self.terms = Terms()
        for node in graph.running:
            self._views[node.output] = self._bounded(self._after(node))

    def _after(self, node: Node) -> _Views:
        graph, kind = self._graph, KINDS.get(node.kind)
        inputs = [i for i in dict.fromkeys(node.inputs) if i and not graph.is_constant(i)]
        if kind is None or kind.price in _BEGINNINGS or not inputs:
            return {node.output: _View()}
        given = {value: self._bounded(self._views[value]) for value in inputs}
        apart = _apart(given.values())
        joined = frozenset().union(*(self._joined.get(i, frozenset()) for i in inputs))
        if node.kind in ("Add", "Sub"):
            self.terms.macs |= apart
            size = math.prod(graph.shapes[node.output])
            if any(math.prod(graph.shapes[term]) >= size for term in apart):
                self.terms.added.add(node.output)
        elif node.kind == "Concat":
            joined |= apart
        elif kind.price is Price.POOL and elements_read(graph, node, self._axes):
            self.terms.products |= joined
        moved = kind.price in (Price.MOVE, Price.POOL) and node.kind != "Identity"
        product = frozenset({node.output}) if node.kind in _PRODUCTS else frozenset()
        names = dict.fromkeys(name for views in given.values() for name in views)
        if math.prod(graph.shapes[node.output]) > sum(math.prod(graph.shapes[name]) for name in names):
            joined |= product  # of copies
        self._joined[node.output] = joined
        after: dict[str, _View] = {}
        for name in names:
            views = [views[name] for views in given.values() if name in views]
            mark = self._mark(*dict.fromkeys(view.moves for view in views))
            products = product.union(*(view.products for view in views)) - self.terms.macs
            after[name] = _View(products, self._mark(mark, node.output) if moved else mark)
        return after

    def _mark(self, first: int, *moves: int | str) -> int:
        """The same number for the same moves."""
        return self._marks.setdefault((first, *moves), len(self._marks) + 1) if moves else first

    def _bounded(self, views: _Views) -> _Views:
        """Under the names that maps have by now; too many become one."""
        renamed: dict[str, _View] = {}
        for name, view in views.items():
            name = self._name(name)
            known = renamed.get(name, view)
            marks = dict.fromkeys((known.moves, view.moves))
            view = _View(known.products | view.products, self._mark(*marks))
            if len(view.products) > _MOST_PRODUCTS and view.moves:
                self.terms.macs |= view.products
                view = _View(moves=view.moves)
            renamed[name] = view
        if len(renamed) <= _MOST:
            return renamed
        first, *others = renamed
        self._one.update(dict.fromkeys(others, first))
        return self._bounded(renamed)

    def _name(self, name: str) -> str:
        while name in self._one:
            name = self._one[name]
        return name


def _apart(inputs: Iterable[_Views]) -> frozenset[str]:
    """The products that tell several views of one map from each other."""
    found: frozenset[str] = frozenset()
    before: dict[str, _View] = {}
    for views in inputs:
        for name, view in views.items():
            other = before.setdefault(name, view)
            if other.moves != view.moves:
                found |= other.products ^ view.products
    return found
