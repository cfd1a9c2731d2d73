"""Convolutions written out as sums of products, which no layer grants.

Several views of one map (shifted, cut, pooled, permuted), each times its own numbers, and their sum: that is a
convolution. Its products are multiply-accumulates wherever they stand, each with the addition that takes it in. What
layers grant is for numbers that fold into these layers, and numbers of several views do not. The same holds for a map
times a table, or another map, that is averaged over rows and columns, which alone would be free.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace

from scoring.analysis.axes import Axes, elements_read, is_spatial
from scoring.graph.graph import KINDS, Charge, Graph, Node

_PRODUCTS = frozenset({"Mul", "Div", "BatchNormalization"})
"""Kinds that multiply a map by numbers, or by another map."""
_LINEAR = frozenset({"Add", "Sub", "Mul", "Div", "BatchNormalization", "Neg", "Cast", "Identity"})
"""Steps that an average goes through."""
_CHOICES = (Charge.ACTIVATION, Charge.QUANTISER, Charge.ELEMENT)
"""What can stand for a product where it has numbers of its own: a slope, a bound, a step, a choice of two numbers."""
_AVERAGES = frozenset({"AveragePool", "AdaptiveAveragePool", "ReduceMean", "ReduceSum"})
_BEGINNINGS = (Charge.LAYER, Charge.READ, Charge.EXPRESSION)
"""What these make is a map of its own and no view."""
_MOST = 16
"""Maps that one value is a view of, followed apart; where there are more, they count as one."""

_SEVERAL = 4
"""Additions and sums that one value goes into: more make a convolution."""
_MOST_PRODUCTS = 256
"""On the way of a view that was moved, between two layers; more are taken for terms."""


@dataclass(frozen=True)
class _View:
    """How a value came from a map: the products on the way, and marks that differ where it was moved otherwise.

    shifts: without the poolings, which the contest leaves free: one number of a layer may scale what they give.
    """

    products: frozenset[str] = frozenset()
    moves: int = 0
    shifts: int = 0


_Views = Mapping[str, _View]


@dataclass
class Terms:
    """Outputs of the nodes of convolutions that are written out.

    macs: products, each with an addition. added: the additions of these. products: whose sum is a reduction, which is
    priced by itself. ones: additions of several views of one map, and sums of copies, which are the terms of a
    convolution of ones. often: additions and sums of maps that are added up again and again, which may be. summed: sums
    over channels of what layers make, and the names of these layers.
    """

    macs: set[str] = field(default_factory=set)
    added: set[str] = field(default_factory=set)
    products: set[str] = field(default_factory=set)
    ones: set[str] = field(default_factory=set)
    often: set[str] = field(default_factory=set)
    summed: dict[str, frozenset[str]] = field(default_factory=dict)
    tables: set[str] = field(default_factory=set)
    """Pieces of a map that numbers were joined to: they may be these numbers."""


def terms_of_convolutions(graph: Graph, axes: dict[str, Axes], functions: Container[str] = ()) -> Terms:
    """The products that are terms of a convolution, and the sums that take them in.

    functions: outputs that are part of a function of one value; these are activations.
    """
    return _Search(graph, axes, functions).terms


class _Search:
    def __init__(self, graph: Graph, axes: dict[str, Axes], functions: Container[str]) -> None:
        self._graph, self._axes, self._functions = graph, axes, functions
        self._views: dict[str, _Views] = {graph.input: {graph.input: _View()}}
        self._joined: dict[str, frozenset[str]] = {}
        """Products of several views that lie beside each other in one value, so that a reduction may add them up."""
        self._weighted: dict[str, frozenset[str]] = {}
        """Products of two values that both change along rows or columns: their average is a product of matrices."""
        self._compared: dict[str, frozenset[str]] = {}
        """Sums and differences of such values: only where a step that is not linear comes before the average."""
        self._makers: dict[str, frozenset[str]] = {}
        """The layers that lead to a value: its channels carry their multipliers."""
        self._with_numbers: dict[str, str] = {}
        """Maps that numbers other than zero were joined to, and where they were."""
        self._sources: dict[str, str] = {}
        """The values that others have come from by moves and element by element."""
        self._copied: set[str] = set()
        """Values that hold elements of a map more than once."""
        self._one: dict[str, str] = {}
        self._sums: dict[str, tuple[str, ...]] = {}
        """Additions and sums, and what they add: values before copies, signs and moves."""
        self._marks: dict[tuple[object, ...], int] = {}
        self.terms = Terms()
        for node in graph.running:
            self._views[node.output] = self._bounded(self._after(node))
        times = Counter(value for values in self._sums.values() for value in values)
        often = (out for out, values in self._sums.items() if any(times[value] > _SEVERAL for value in values))
        self.terms.often.update(often)

    def _after(self, node: Node) -> _Views:
        graph, kind = self._graph, KINDS.get(node.kind)
        inputs = [i for i in dict.fromkeys(node.inputs) if i and not graph.is_constant(i)]
        if kind is None or kind.price in _BEGINNINGS or not inputs:
            self._makers[node.output] = frozenset({node.name})
            return {node.output: _View()}
        self._makers[node.output] = frozenset().union(*(self._makers.get(i, frozenset()) for i in inputs))
        self._note_tables(node, inputs)
        if len(inputs) == 1 and (kind.element_wise or kind.price is Charge.MOVE):
            self._sources[node.output] = self._sources.get(inputs[0], inputs[0])
        if any(i in self._copied for i in inputs) or self._copies(node):
            self._copied.add(node.output)
        given = {value: self._bounded(self._views[value]) for value in inputs}
        apart = _apart(given.values())
        joined = frozenset().union(*(self._joined.get(i, frozenset()) for i in inputs))
        weighted = frozenset().union(*(self._weighted.get(i, frozenset()) for i in inputs))
        compared = frozenset().union(*(self._compared.get(i, frozenset()) for i in inputs))
        if node.kind in ("Add", "Sub"):
            self.terms.macs |= apart
            if len(given) == 2:
                first, second = given.values()
                self._sums[node.output] = tuple(map(self._before_moves, given))
                if any(name in second and view.shifts != second[name].shifts for name, view in first.items()):
                    self.terms.ones.add(node.output)
            size = math.prod(graph.shapes[node.output])
            if any(math.prod(graph.shapes[term]) >= size for term in apart):
                self.terms.added.add(node.output)
        elif node.kind == "Concat":
            joined |= apart
        elif kind.price is Charge.POOL and elements_read(graph, node, self._axes):
            self.terms.products |= joined
            self._note_sum(node, inputs[0])
        elif node.kind in _AVERAGES:
            self.terms.macs |= weighted
        shifted = kind.price is Charge.MOVE and node.kind != "Identity"
        product = frozenset({node.output}) if _has_numbers(graph, node) else frozenset()
        names = dict.fromkeys(name for views in given.values() for name in views)
        if math.prod(graph.shapes[node.output]) > sum(math.prod(graph.shapes[name]) for name in names):
            joined |= product  # of copies
        if kind.element_wise and node.kind not in _LINEAR:
            weighted, compared = weighted | compared, frozenset()
        if self._is_weighted(node, given) and node.kind in ("Add", "Sub"):
            compared |= {node.output}
        elif self._is_weighted(node, given):
            weighted |= {node.output}
        self._joined[node.output], self._weighted[node.output] = joined, weighted
        self._compared[node.output] = compared
        if product and len(given) == 2:  # a gate: the larger one is the map, and a kernel is the same at every place
            small, large = sorted(given, key=lambda i: math.prod(graph.shapes[i]))
            if any(axis and is_spatial(axis) for axis in self._axes[small]):
                product = frozenset()
            given = {large: given[large]}
            names = dict.fromkeys(given[large])
        moved = shifted or kind.price is Charge.POOL
        seen = {name: [views[name] for views in given.values() if name in views] for name in names}
        return {name: self._behind(node, views, product, shifted, moved) for name, views in seen.items()}

    def _behind(self, node: Node, views: list[_View], product: frozenset[str], shifted: bool, moved: bool) -> _View:
        """What is seen of one value behind a node, by all the ways that lead there."""
        products = product.union(*(view.products for view in views)) - self.terms.macs
        shifts = self._mark(*dict.fromkeys(view.shifts for view in views), *((node.output,) if shifted else ()))
        moves = self._mark(*dict.fromkeys(view.moves for view in views), *((node.output,) if moved else ()))
        return _View(products, moves, shifts)

    def _note_tables(self, node: Node, inputs: list[str]) -> None:
        graph = self._graph
        numbers = (graph.constants[i] for i in node.inputs if i and graph.is_constant(i))
        if node.kind == "Concat" and any(n.device.type == "meta" or bool(n.any()) for n in numbers):
            self._with_numbers[node.output] = node.output
        elif KINDS[node.kind].price in (Charge.MOVE, Charge.FREE):
            if any(i in self.terms.tables for i in inputs):
                self.terms.tables.add(node.output)
            elif inputs[0] in self._with_numbers:
                joined = self._with_numbers[inputs[0]]
                if node.kind not in ("Slice", "Gather"):
                    self._with_numbers[node.output] = joined
                elif node.kind == "Gather" or joined != inputs[0] or self._meets_numbers(node):
                    self.terms.tables.add(node.output)

    def _meets_numbers(self, node: Node) -> bool:
        """Whether a slice of what was just joined holds some of the numbers."""
        graph, start = self._graph, 0
        join = graph.producers[node.inputs[0]]
        axis = int(join.attributes["axis"])
        first, last, step = (node.attributes[name][axis] for name in ("starts", "ends", "steps"))
        taken = range(graph.shapes[join.output][axis])[slice(first, last, step)]
        taken = taken if step > 0 else taken[::-1]
        for value in join.inputs:
            size = graph.shapes[value][axis]
            nearest = max(0, math.ceil((start - taken.start) / taken.step))
            if graph.is_constant(value) and nearest < len(taken) and taken[nearest] < start + size:
                return True
            start += size
        return False

    def _copies(self, node: Node) -> bool:
        """Whether a move takes elements more than once."""
        graph = self._graph
        if node.kind == "Gather" and graph.is_constant(node.inputs[1]):
            index = graph.constants[node.inputs[1]]
            return index.device.type != "meta" and index.unique().numel() < index.numel()
        if node.kind == "Concat":
            taken: Counter[str] = Counter()
            for value in node.inputs:
                taken[self._sources.get(value, value)] += math.prod(graph.shapes[value])
            return any(size > math.prod(graph.shapes[source]) for source, size in taken.items())
        before, after = graph.shapes[node.inputs[0]], graph.shapes[node.output]
        if node.kind == "ResizeNearest":  # of what is no row and no column
            axes = self._axes[node.inputs[0]]
            return any(n < m and not is_spatial(axes[i]) for i, (n, m) in enumerate(zip(before, after, strict=True)))
        return node.kind == "Expand" and math.prod(after) > math.prod(before)

    def _note_sum(self, node: Node, value: str) -> None:
        """A sum over channels, or the largest of them, is a layer of ones where it reads copies, or one map many times.

        What a layer makes carries its multipliers, granted ones: with the sum they are products and additions.
        """
        if value in self._copied:
            self.terms.ones.add(node.output)
        if node.kind in _AVERAGES:
            self.terms.summed[node.output] = self._makers[value]
        self._sums[node.output] = (self._before_moves(value),)

    def _is_weighted(self, node: Node, given: Mapping[str, _Views]) -> bool:
        """Whether both operands of a product change along rows or columns, and not as functions of the same place."""
        graph, shape = self._graph, self._graph.shapes[node.output]
        operands = list(dict.fromkeys(i for i in node.inputs if i))
        joins = KINDS[node.kind].price is Charge.ELEMENT or node.kind in ("Add", "Sub", "Mul", "Div")
        if not joins or len(operands) < 2 or node.output in self._functions:
            return False
        if node.kind not in ("Mul", "Div") and len(given) > 1:  # a residual addition, but for copies of both maps
            maps = {name for views in given.values() for name in views}
            if math.prod(shape) <= sum(math.prod(graph.shapes[name]) for name in maps):
                return False
        if len(given) == 2:
            first, second = given.values()
            if any(name in second and view.moves == second[name].moves for name, view in first.items()):
                return False
        spatial = [len(shape) - i for i, axis in enumerate(self._axes[node.output]) if axis and is_spatial(axis)]
        sizes = [graph.shapes[i] for i in operands]
        return any(all(len(size) >= end and size[-end] > 1 for size in sizes) for end in spatial)

    def _before_moves(self, value: str) -> str:
        graph, maker = self._graph, self._graph.producers.get(value)
        while maker is not None and maker.kind in KINDS:
            price = KINDS[maker.kind].price
            sizes = [math.prod(graph.shapes[i]) for i in (maker.inputs[0], maker.output)]
            pools_nothing = price is Charge.POOL and sizes[0] == sizes[1]
            if price not in (Charge.FREE, Charge.MOVE) and not pools_nothing:
                break
            value = maker.inputs[0]
            maker = graph.producers.get(value)
        return value

    def _mark(self, first: int, *moves: int | str) -> int:
        """The same number for the same moves."""
        return self._marks.setdefault((first, *moves), len(self._marks) + 1) if moves else first

    def _bounded(self, views: _Views) -> _Views:
        """Under the names that maps have by now; too many become one."""
        renamed: dict[str, _View] = {}
        for name, view in views.items():
            name = self._name(name)
            known = renamed.get(name, view)
            moves = self._mark(*dict.fromkeys((known.moves, view.moves)))
            shifts = self._mark(*dict.fromkeys((known.shifts, view.shifts)))
            view = _View(known.products | view.products, moves, shifts)
            if len(view.products) > _MOST_PRODUCTS and moves:
                self.terms.macs |= view.products
                view = replace(view, products=frozenset())
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


def _has_numbers(graph: Graph, node: Node) -> bool:
    """Whether a node multiplies, or stands for a product by numbers of its own."""
    if node.kind in _PRODUCTS:
        return True
    given = any(isinstance(v, float) for v in node.attributes.values()) or any(map(graph.is_constant, node.inputs))
    return KINDS[node.kind].price in _CHOICES and given


def _apart(inputs: Iterable[_Views]) -> frozenset[str]:
    """The products that tell several views of one map from each other."""
    found: frozenset[str] = frozenset()
    before: dict[str, _View] = {}
    for views in inputs:
        for name, view in views.items():
            other = before.setdefault(name, view)
            between = other.products ^ view.products
            if other.shifts != view.shifts or (other.moves != view.moves and len(between) > 1):
                found |= between
    return found
