"""The float networks that come with the package: whole, from split 0 alone, and a start for a compression."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from contest import networks
from contest.candidate import Candidate
from contest.errors import UsageError
from contest.training import start_from
from contest.zoo import PARENTS, parent_files

SPLIT = "5091ca8a4d93ae19"


@pytest.mark.parametrize("path", sorted(PARENTS.glob("*.ckpt")), ids=lambda path: path.stem)
def test_a_parent_gives_its_network_every_weight(path: Path) -> None:
    provenance = torch.load(path, weights_only=True)["provenance"]
    candidate = Candidate.from_json(provenance["candidate"])
    assert provenance["split_sha256"].startswith(SPLIT), "the training images of split 0 alone"
    assert float(provenance["validation"].split()[0]) > 91
    model = networks.build(candidate.architecture)
    assert set(start_from(path, model, provenance["split_sha256"])) == set(model.state_dict())
    assert path.stat().st_size < 500_000
    with pytest.raises(UsageError, match=r"another split \(5091ca8a4d93ae19; this one is 0123\)"):
        start_from(path, model, "0123")


def test_the_parent_of_an_entry_on_all_images_starts_its_compression_and_no_search() -> None:
    path = PARENTS / "all_images" / "inverted-7m-3bit-float.ckpt"
    entry = Candidate.read(PARENTS.parents[2] / "docs" / "record" / "inverted-7m-3bit.json")
    model = networks.build(entry.architecture)
    assert set(start_from(path, model)) == set(model.state_dict())
    with pytest.raises(UsageError, match=f"another split .all images; this one is {SPLIT}"):
        start_from(path, model, SPLIT)


def test_the_default_is_the_parent_that_searches_were_measured_with() -> None:
    assert [path.stem for path in parent_files()] == ["inverted-8m-float"]
    assert [path.stem for path in parent_files([PARENTS / "inverted-7m-float.ckpt"])] == ["inverted-7m-float"]
