"""The comparison of rows: what each is asked and answers, how it is scored, and that one step learns."""

from __future__ import annotations

import json
import re

import household
import numpy as np
import pytest
import rendering  # noqa: F401 (skips this module where nothing can be rendered)
import torch
from elsewhere import Elsewhere

from gsva_ros.ablations import learn, runs, score
from gsva_ros.ablations.report import difference, page
from gsva_ros.ablations.rows import ROWS, branches
from gsva_ros.ablations.score import Answers
from gsva_ros.ablations.shared import EncodedScenes
from gsva_ros.errors import InputError
from gsva_ros.model.bundled import model_directory
from gsva_ros.model.checkpoint import load_converted
from gsva_ros.model.tokenizer import Special
from gsva_ros.scenes import Expression, SceneSet
from gsva_ros.train.config import Config

ASKED = [
    Expression("the red mug", "single", (1,)),
    Expression("the blue can", "absent_kind", ()),
    Expression("all boxes", "multiple", (2, 3)),
]


@pytest.fixture(scope="module")
def checkpoint():
    return load_converted(model_directory("gsva-mini"))


def slots_of(checkpoint, branch):
    """The slot tokens that a branch's slots are followed by."""
    names = {v: k for k, v in checkpoint.prompt.tokenizer.ids.items()}
    return [names.get(branch.labels[at]) for at in branch.slots]


@pytest.mark.parametrize(
    ("name", "conversations", "slots", "targets"),
    [
        ("A", 3, ["SEG"] * 3, [(1,), (), (2, 3)]),
        ("B", 3, ["SEG"] * 3, [(1,), (), (2, 3)]),
        ("C", 1, ["SEG"] * 3, [(1,), (), (2, 3)]),
        ("D", 1, ["SEG"], [(1, 2, 3)]),
        ("E", 1, ["SEG", "REJ", "SEG"], [(1,), (), (2, 3)]),
    ],
)
def test_rows_ask_and_answer_as_they_say(checkpoint, name, conversations, slots, targets):
    made = branches(checkpoint.prompt, ROWS[name], ASKED, [True, False, True])
    assert len(made) == conversations
    assert [s for b in made for s in slots_of(checkpoint, b)] == [Special[s] for s in slots]
    assert [t for b in made for t in b.targets] == targets


def test_a_prompt_of_nothing_but_absents_is_rejected_as_a_whole(checkpoint):
    (only,) = branches(checkpoint.prompt, ROWS["D"], ASKED[1:2] * 2, [False, False])
    assert slots_of(checkpoint, only) == [Special.REJ]
    assert only.targets == ((),)


def test_every_row_draws_the_same_and_the_first_no_absents():
    many = [Expression(f"thing {k}", "single", (1,) if k % 2 else ()) for k in range(20)]
    first, second = (learn.draw(many, np.random.default_rng(3)) for _ in range(2))
    assert first == second
    assert [len(p) for p in first] == list(learn.PROMPTS)
    assert len({e.text for p in first for e in p}) == sum(learn.PROMPTS)
    present = learn.without_absent(first, many, np.random.default_rng(0))
    assert [len(p) for p in present] == list(learn.PROMPTS)
    assert all(e.targets for p in present for e in p)
    for before, after in zip(first, present, strict=True):
        assert [a for b, a in zip(before, after, strict=True) if b.targets] == [
            b for b in before if b.targets
        ]


@pytest.mark.parametrize("name", [None, "B", "E"])
def test_a_row_learns_where_its_model_is(checkpoint, tmp_path, name):
    """The trainer moves the model to a GPU, and the scenes and their features are read on the CPU."""
    household.write(tmp_path / "scenes", 3)
    scenes, sizes = SceneSet(tmp_path / "scenes", "test"), checkpoint.model.config
    rng = np.random.default_rng(0)
    clip = rng.normal(size=(3, sizes.image_tokens, sizes.clip.hidden_size)).astype(np.float16)
    sam = rng.normal(size=(3, sizes.sam.prompt_embed_dim, *[sizes.sam_grid] * 2))
    data = EncodedScenes(scenes, clip, sam.astype(np.float16))
    config = Config(out=tmp_path, model="gsva-mini", sources=[{"kind": "scenes"}], batch=2)
    row = ROWS[name] if name else None
    learner = learn.Learner(checkpoint, data, row, config)
    here, _ = learner(torch.tensor(3))
    with Elsewhere() as gpu:
        gpu.move(learner)
        there, _ = learner(torch.tensor(3))
    assert there.item() == here.item()


def made_up(sureness, seed=0):
    """Answers to 40 expressions: present ones have a mask of IoU 0.5."""
    rng = np.random.default_rng(seed)
    present = np.arange(40) % 2 == 0
    return Answers(
        scene=np.arange(40) // 4,
        asked=np.array([1, 1, 3, 3, 5, 5, 1, 1] * 5),
        category=np.array(["single", "absent_kind", "multiple", "relative"] * 10),
        present=present,
        sureness=np.where(present, 0.9, sureness) + rng.uniform(0, 0.05, 40),
        intersection=np.where(present, 50, 0),
        union=np.full(40, 100),
        truth_area=np.where(present, 75, 0),
    )


def test_the_threshold_parts_what_can_be_parted():
    answers = made_up(0.2)
    limits = answers.thresholds()
    assert all(0.2 < limit <= 0.95 for limit in limits.values())
    assert set(limits) == {1, 3, 5}
    terms = answers.terms(limits).sum(0)
    assert terms[5] == terms[4] == 20  # every absent one rejected
    assert terms[7] == terms[6] == 20  # every present one kept
    assert Answers.of_lists(json.loads(json.dumps(answers.to_lists()))).thresholds() == limits


def test_a_size_of_prompt_does_not_choose_for_another():
    parted, mixed = made_up(0.2), made_up(0.2)
    five = mixed.asked == 5
    mixed.sureness[five] = 1.0 - mixed.sureness[five]  # absent ones are surer there
    assert mixed.thresholds()[1] == parted.thresholds()[1]
    assert mixed.thresholds()[5] != parted.thresholds()[5]


def test_the_page_shows_rows_and_their_differences():
    worse = (made_up(0.95), dict.fromkeys((1, 3, 5), 0.9))
    better = (made_up(0.2), dict.fromkeys((1, 3, 5), 0.5))
    runs = {name: [better if name == "E" else worse] * 2 for name in ROWS}
    text = page(runs)
    assert text.count("\n| A |") == 4 + 1  # the list of rows, kinds, and three sizes of prompt
    assert "2 seeds" in text
    verdicts = dict(re.findall(r"^\| ([^|]+) \| \w over \w \|.*\| ([^|]+) \|$", text, re.M))
    assert verdicts["a slot for each expression"] == "yes"
    assert verdicts["absent things in training"] == "not everywhere"  # A and B are the same here
    gain = difference([worse], [better], 1)
    assert gain[2].startswith("+1.000")  # N-acc: from nothing rejected to all
    assert difference([better], [better], 1)[0] == "+0.000 [+0.000, +0.000]"


def test_a_joint_prompt_is_decided_by_the_models_own_answers(checkpoint, monkeypatch):
    """E alone is asked again; what it then reads are its own decisions."""
    seen = []

    def passed(_, row, __, asked, kept):
        seen.append([list(p) for p in kept[0]])
        return torch.zeros(len(ASKED), 4), torch.tensor([0.9, 0.1, 0.8])

    monkeypatch.setattr(score, "_pass", passed)
    score._decided(checkpoint, ROWS["E"], torch.zeros(1, 1, 1), [[ASKED]])
    assert seen[0] == [[True] * 3]
    assert seen[-1] == [[True, False, True]]
    count = len(seen)
    score._decided(checkpoint, ROWS["C"], torch.zeros(1, 1, 1), [[ASKED]])
    assert len(seen) == count + 1


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_from_an_empty_folder_to_the_page_and_never_twice(tmp_path, monkeypatch, capsys):
    from gsva_ros.ablations import shared
    from gsva_ros.cli import main

    monkeypatch.setattr(shared, "COUNTS", {"train": 6, "val": 4, "test": 4})
    for name, value in {"BASE_STEPS": 2, "ROW_STEPS": 2, "BATCH": 2}.items():
        monkeypatch.setattr(learn, name, value)
    given = ["ablate", "--out", str(tmp_path / "runs"), "--seeds", "1"]
    report = tmp_path / "ablations.md"
    assert main(given) == 0
    first = (tmp_path / "runs" / "ablations.md").read_text()
    assert "| D |" in first
    monkeypatch.setattr(learn, "teach", _only_the_base(learn.teach))
    assert main([*given, "--report", str(report)]) == 0
    assert report.read_text() == first
    assert capsys.readouterr().out.count("row ") == len(ROWS)


@pytest.mark.parametrize("content", ["", '{"thresholds": {"1"', "[]", '{"thresholds": {}}'])
def test_answers_that_are_damaged_are_told(tmp_path, content):
    path = tmp_path / "answers.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"answers\.json: not answers of .*delete it"):
        runs._run(tmp_path, {}, "A", 1, tmp_path)


def _only_the_base(teach):
    def taught(out, data, name, *rest):
        assert not name, "a finished row was trained again"
        return teach(out, data, name, *rest)

    return taught
