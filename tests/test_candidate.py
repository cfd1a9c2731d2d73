"""Candidates are plain data that survive a file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contest.candidate import Architecture, Bits, Candidate, Recipe
from contest.errors import UsageError

bits = st.sampled_from([*range(1, 9), 16, 32])
candidates = st.builds(
    Candidate,
    architecture=st.builds(
        Architecture,
        st.sampled_from(["resnet", "thin"]),
        st.dictionaries(
            st.sampled_from(["depth", "width", "widths", "block"]),
            st.one_of(st.integers(1, 99), st.text(max_size=5), st.tuples(st.integers(1, 9), st.integers(1, 9))),
        ),
    ),
    bits=st.builds(Bits, bits, bits, st.booleans(), st.dictionaries(st.text(max_size=5), st.tuples(bits, bits))),
    structured=st.floats(0, 0.4),
    unstructured=st.floats(0, 0.5),
    train=st.builds(Recipe, epochs=st.floats(0, 300), flip=st.booleans(), schedule=st.sampled_from(["cosine"])),
    seed=st.integers(0, 2**31),
)
with_ratios = st.builds(
    Candidate,
    architecture=st.just(Architecture("resnet")),
    ratios=st.lists(st.tuples(st.text(max_size=5), st.floats(0, 0.99))).map(tuple),
)


@given(candidates | with_ratios)
def test_json_round_trip(candidate: Candidate) -> None:
    again = Candidate.from_json(candidate.to_json())
    assert again == candidate
    assert again.to_json() == candidate.to_json()
    assert hash(again) == hash(candidate)


def test_keys_of_older_studies_still_fit() -> None:
    """Fields that came later are written only where they say something; a study is found by the hash of this text."""
    text = Candidate(Architecture("resnet")).to_json()
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "f60fa9276b3e0004"  # as of the first release
    assert "lookahead" not in text
    changed = Candidate(Architecture("resnet"), train=Recipe(lookahead=0.9, alternate_flips=True))
    assert Candidate.from_json(changed.to_json()) == changed and "alternate_flips" in changed.to_json()


def test_p_s_and_p_u_are_fractions_of_the_same_weights() -> None:
    with pytest.raises(UsageError, match=r"p_s \+ p_u = 1.1"):
        Candidate(Architecture("resnet"), structured=0.5, unstructured=0.6)


def test_zeros_are_asked_for_once_and_as_fractions() -> None:
    with pytest.raises(UsageError, match="both say how many zeros"):
        Candidate(Architecture("resnet"), unstructured=0.5, ratios=(("fc.weight", 0.5),))
    with pytest.raises(UsageError, match=r"ratio of fc\.weight is 1; it must lie in \[0, 1\)"):
        Candidate(Architecture("resnet"), ratios=(("fc.weight", 1.0),))


@pytest.mark.parametrize("wrong", [0, 9, 12, 64])
def test_bits_that_do_not_exist(wrong: int) -> None:
    with pytest.raises(UsageError, match=str(wrong)):
        Bits(wrong, 8)
    with pytest.raises(UsageError, match="'stem'"):
        Bits(8, 8, layers={"stem": (4, wrong)})


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"architecture": {"family": "resnet"}, "colour": 3}', "null"])
def test_what_is_no_candidate(text: str) -> None:
    with pytest.raises(UsageError, match="not a candidate"):
        Candidate.from_json(text)


def test_a_file_that_holds_no_candidate_is_named(tmp_path: Path) -> None:
    for content, why in ((b"\xff\xfe\x00", "no text"), (b"{}", "it has no 'architecture'"), (b"[", "Expecting value")):
        (tmp_path / "e.json").write_bytes(content)
        with pytest.raises(UsageError, match=rf"e\.json: not a candidate: {why}.*; give a candidate\.json"):
            Candidate.read(tmp_path / "e.json")
