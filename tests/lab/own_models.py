"""Networks as users bring them, each a task: indices, sequences, attention, dictionaries, several inputs, one logit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from contest import lab

_draw = torch.Generator().manual_seed(0)
WORDS = torch.randint(1, 40, (96, 10), generator=_draw)
TOPIC = (WORDS.float().mean(1) > 20).long()
FRAMES = torch.randn(96, 16, 6, generator=_draw)
SOUND = (FRAMES.mean((1, 2)) > 0).long()


def loader(*parts: Tensor, shuffle: bool = True) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*parts), batch_size=32, shuffle=shuffle)


class Text(nn.Module):
    """Words [N, T] to topics."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.norm = nn.Embedding(40, 12), nn.LayerNorm(12)
        self.hidden, self.out = nn.Linear(12, 16), nn.Linear(16, 2)

    def forward(self, words: Tensor) -> Tensor:
        return self.out(torch.relu(self.hidden(self.norm(self.words(words).mean(1)))))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(6, 8, batch_first=True, bidirectional=True), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lstm(x)[0][:, -1])


class OnlyRecurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(6, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(x)[0][:, -1]


class Attention(nn.Module):
    """Convolutions over time, then a transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv1d(6, 8, 3, padding=1), nn.GELU(), nn.Conv1d(8, 8, 3, stride=2), nn.GELU())
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.1)
        self.encoder, self.out = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.encoder(self.features(x.transpose(1, 2)).transpose(1, 2)).mean(1))


class Tied(nn.Module):
    """A language model whose output layer is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.rnn = nn.Embedding(40, 8), nn.GRU(8, 8, batch_first=True)
        self.out = nn.Linear(8, 40, bias=False)
        self.out.weight = self.words.weight

    def forward(self, words: Tensor) -> Tensor:
        return self.out(self.rnn(self.words(words))[0])


class Named(nn.Module):
    """Inputs by name, an object with `logits` out."""

    def __init__(self) -> None:
        super().__init__()
        self.text = Text()

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        return SimpleNamespace(logits=self.text(input_ids), hidden=None)


class Dictionary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.text = Text()

    def forward(self, words: Tensor) -> dict[str, Tensor]:
        return {"logits": self.text(words)}


class Two(nn.Module):
    """One argument that is a pair."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.out = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, both: tuple[Tensor, Tensor]) -> Tensor:
        left, right = both
        return self.out(torch.relu(self.left(left.mean(1)) + self.right(right.mean(1))))


class Padded(nn.Module):
    """Sequences with their lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv1d(6, 8, 3, padding=1), nn.Linear(8, 2)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        x = torch.relu(self.conv(x.transpose(1, 2)))
        inside = torch.arange(x.shape[2])[None, :] < lengths[:, None]
        return self.out((x * inside[:, None]).sum(2) / lengths[:, None])


class WeightNormed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.utils.parametrizations.weight_norm(nn.Conv1d(6, 8, 3, padding=1))
        self.out = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.conv(x.transpose(1, 2))).mean(2))


class Lazy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.LazyLinear(8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.hidden(x.flatten(1))))


class OneLogit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(96, 8), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.hidden(x.flatten(1))))


class Pairs(Dataset[Any]):
    def __len__(self) -> int:
        return len(FRAMES)

    def __getitem__(self, index: int) -> Any:
        return (FRAMES[index], FRAMES[index].flip(0)), SOUND[index]


class Batches:
    """Mappings with labels in them, as tokenisers give."""

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for start in (0, 32, 64):
            words = WORDS[start : start + 32]
            yield {"input_ids": words, "attention_mask": torch.ones(words.shape), "labels": TOPIC[start : start + 32]}


class Sequences:
    """(frames, lengths, class), padded to the longest of each batch."""

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for start, longest in ((0, 16), (32, 12), (64, 14)):
            lengths = torch.arange(32) % 8 + longest - 7
            yield FRAMES[start : start + 32, :longest], lengths, SOUND[start : start + 32]


def language(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())


def named(outputs: Any, targets: Tensor) -> Tensor:
    logits = outputs["logits"] if isinstance(outputs, dict) else outputs.logits
    return nn.functional.cross_entropy(logits, targets)


def binary(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(outputs.squeeze(-1), targets.float())


@torch.no_grad()
def own_accuracy(model: nn.Module, batches: Any) -> float:
    """A metric that knows the model's own output."""
    right = [(model(words)["logits"].argmax(1) == topic).float().mean() for words, topic in batches]
    return 100 * float(torch.stack(right).mean())


def task(name: str, model: Callable[[], nn.Module], *parts: Tensor, **more: Any) -> lab.Task:
    return lab.Task(name, model, loader(*parts), loader(*(part[:64] for part in parts), shuffle=False), **more)


NEXT = WORDS.roll(-1, 1)
TASKS: dict[str, Callable[[], lab.Task]] = {
    "text": lambda: task("text", Text, WORDS, TOPIC),
    "recurrent": lambda: task("recurrent", Recurrent, FRAMES, SOUND),
    "only-recurrent": lambda: task("only-recurrent", OnlyRecurrent, FRAMES, SOUND),
    "attention": lambda: task("attention", Attention, FRAMES, SOUND),
    "tied": lambda: task("tied", Tied, WORDS, NEXT, loss=language),
    "dictionary": lambda: task(
        "dictionary", Dictionary, WORDS, TOPIC, loss=named, metric=lab.Metric("Accuracy", own_accuracy, unit="%")
    ),
    "named": lambda: lab.Task("named", Named, Batches(), Batches(), loss=named),
    "two": lambda: lab.Task("two", Two, DataLoader(Pairs(), 32, shuffle=True), DataLoader(Pairs(), 32)),
    "padded": lambda: lab.Task("padded", Padded, Sequences(), Sequences()),
    "weight-norm": lambda: task("weight-norm", WeightNormed, FRAMES, SOUND),
    "lazy": lambda: task("lazy", Lazy, FRAMES, SOUND),
    "one-logit": lambda: task("one-logit", OneLogit, FRAMES, SOUND, loss=binary),
}
