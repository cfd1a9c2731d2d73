"""What the page tests know of the server that they talk to."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastapi import FastAPI

from leaderboard.board import Board


@dataclass
class Site:
    """A running leaderboard."""

    app: FastAPI
    url: str
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def board(self) -> Board:
        board: Board = self.app.state.board
        return board
