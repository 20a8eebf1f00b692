"""The tagger of stanza, a packed highway LSTM, on a made language: three tags of each word."""

from __future__ import annotations

import numpy as np
from stanza.models import tagger
from stanza.models.common import utils
from stanza.models.common.doc import Document
from stanza.models.pos.data import Dataset
from stanza.models.pos.model import Tagger
from stanza.models.pos.trainer import Trainer

from arms import Arm
from entry import Entry, Outcome

ENTRY = Entry(
    title="LSTM tagger with packed sequences, three kinds of tags",
    package="stanza",
    metric="words with all tags right",
    better="higher",
    tasks=("upos", "xpos", "feats"),
)
OPTIONS = """
--lang en --shorthand en_made --no_char --no_pretrain --hidden_dim 64 --batch_size 32
--deep_biaff_hidden_dim 64 --composite_deep_biaff_hidden_dim 32 --word_emb_dim 32 --word_cutoff 1
--transformed_dim 32 --tag_emb_dim 16 --dropout 0.3 --word_dropout 0.1"""
TAGS, STEMS, KINDS, TRAIN, TEST, STEPS = "NVADPX", 150, 4, 1500, 300, 300
CRITERION = "self.crit(tag_pred.view(-1, tag_pred.size(-1)), tag[:, i].view(-1))"
LINES = {
    "loss = self.crit(upos_pred.view(-1, upos_pred.size(-1)), upos.view(-1))": "loss = {'upos': "
    "self.crit(upos_pred.view(-1, upos_pred.size(-1)), upos.view(-1))}",
    f"loss += {CRITERION}": f"loss[name] = loss.get(name, 0.0) + {CRITERION}",
    "return loss, preds": "return self.balancer(loss) if loss else loss, preds",
}


def sentences(count: int, draw: np.random.Generator) -> list[list[dict[str, str]]]:
    """A hidden Markov chain of parts of speech; the form of a word does not tell all its tags."""
    rules = np.random.default_rng(0)  # the language is one, its sentences are drawn
    follows = rules.dirichlet(np.full(len(TAGS), 0.4), len(TAGS))
    stems = rules.dirichlet(np.full(STEMS, 0.05), len(TAGS))
    kinds = rules.integers(KINDS, size=(len(TAGS), len(TAGS)))
    made = []
    for _ in range(count):
        tag, number, words = draw.integers(len(TAGS)), draw.integers(2), []
        for place in range(draw.integers(4, 16)):
            before, tag = tag, draw.choice(len(TAGS), p=follows[tag])
            number = number if draw.random() < 0.8 else 1 - number
            stem, case = draw.choice(STEMS, p=stems[tag]), before % 3
            form = f"w{stem}{'ab'[number] if draw.random() < 0.5 else ''}"
            xpos = f"{TAGS[tag]}{'xyz'[case]}{kinds[tag, before]}"
            feats = f"Case={'QRS'[case]}|Number={'ST'[number]}"
            word = {"id": place + 1, "text": form, "upos": TAGS[tag], "xpos": xpos, "feats": feats}
            words.append(word)
        made.append(words)
    return made


def train(arm: Arm, seed: int) -> Outcome:
    """Train, and return the part of held-out words of which all three tags are right."""
    utils.set_random_seed(seed)
    draw, args = np.random.default_rng(seed), tagger.parse_args(OPTIONS.split())
    seen = Dataset(Document(sentences(TRAIN, draw)), args, None)
    unseen = Dataset(Document(sentences(TEST, draw)), args, None, vocab=seen.vocab, evaluation=True)
    trainer = Trainer(args=args, vocab=seen.vocab, device="cpu")
    trainer.model.balancer = arm.balancer(trainer.model.taggerlstm)
    trainer.model.forward = arm.change(Tagger.forward, LINES).__get__(trainer.model)
    loader = seen.to_loader(batch_size=args["batch_size"], shuffle=True)
    with arm.training():
        for _ in range(STEPS // len(loader)):
            for batch in loader:
                trainer.update(batch)
    held_out = unseen.to_loader(batch_size=50)
    told = [word for b in held_out for sentence in trainer.predict(b) for word in sentence]
    true = [[w.upos, w.xpos, w.feats] for s in unseen.doc.sentences for w in s.words]
    right = np.array(told) == np.array(true)
    parts = dict(zip(ENTRY.tasks, right.mean(0).tolist(), strict=True))
    return Outcome(float(right.all(1).mean()), trainer.model, parts)
