"""Vectors shaped like a learned sparse encoder's, in any number, the same for the same seed.

A passage mixes terms of its topic, of a neighbouring topic and of the whole vocabulary, with weights that
fall off within a topic and grow with rarity; terms of the background follow Zipf's law. A question is a
passage nobody indexed, of which a few terms are kept, heavy ones sooner, with their weights distorted. The
means are those of SPLADE on web passages (`splade`: 120 terms a passage, 42 a question) and of an
inference-free model (`ifree`: 180 and 6). Real encodings are less even: report both.
"""

# ruff: noqa: NPY002 - compiled code draws from numba's own generator, which only the old calls reach

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from models.csr import Csr

VOCABULARY = 30_522
SUPER_TERMS, TOPIC_TERMS, INHERITED = 400, 220, 110
OWN_SHARE, NEAR_SHARE = 0.24, 0.16  # of a passage's terms: from its topic, from a neighbouring one

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """How long passages and questions are, and how a question's weights follow the passage's."""

    terms: float
    spread: float
    question_terms: float
    question_spread: float
    power: float


SHAPES = {
    "splade": Shape(terms=120, spread=35, question_terms=43, question_spread=13, power=1.5),
    "ifree": Shape(terms=180, spread=50, question_terms=6.2, question_spread=2.2, power=0.8),
}


@dataclass(frozen=True)
class World:
    """What passages are drawn from: popularity and rarity of terms, topics and their terms."""

    popular: Floats  # [V] cumulative chances
    rarity: Floats  # [V] 0 for the commonest term, 1 for the rarest
    parents: NDArray[np.int64]  # [topics] super topic of each
    topics: NDArray[np.int32]  # [topics, TOPIC_TERMS]
    weights: NDArray[np.float32]  # [topics, TOPIC_TERMS]
    chances: Floats  # [topics, TOPIC_TERMS] cumulative along a row
    sizes: Floats  # [topics] share of the passages


def synthesise(kind: str, passages: int, questions: int) -> tuple[Csr, Csr]:
    """Passages and questions of a kind in `SHAPES`."""
    shape, world = SHAPES[kind], _world(passages)
    indexed = _draw(world, shape, passages, seed=11, least=20, question=False)
    return indexed, _draw(world, shape, questions, seed=99, least=40, question=True)


def _world(passages: int) -> World:
    rng = np.random.default_rng(7)
    supers, count = max(40, passages // 4000), max(150, passages // 700)
    shares = 1 / (np.arange(VOCABULARY) + 60.0) ** 0.95
    popularity = np.empty(VOCABULARY)
    popularity[rng.permutation(VOCABULARY)] = shares / shares.sum()
    rarity = np.log(popularity.max() / popularity)
    rarity /= rarity.max()
    likely = 0.75 * np.log(popularity)
    pools = np.stack([_without_replacement(rng, likely, SUPER_TERMS) for _ in range(supers)])
    parents = rng.integers(0, supers, count)
    topics, weights = _topics(rng, pools[parents], likely, rarity)
    chances = np.cumsum(weights.astype(np.float64), axis=1)
    sizes = 1 / (np.arange(count) + 20.0) ** 0.5
    return World(
        popular=np.cumsum(popularity),
        rarity=rarity,
        parents=parents,
        topics=topics,
        weights=weights,
        chances=chances / chances[:, -1:],
        sizes=rng.permutation(sizes / sizes.sum()),
    )


def _topics(
    rng: np.random.Generator, pools: NDArray[np.int64], likely: Floats, rarity: Floats
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Half of a topic's terms come from its super topic, the others are its own; their weights fall off."""
    topics = np.empty((len(pools), TOPIC_TERMS), np.int32)
    weights = np.empty((len(pools), TOPIC_TERMS), np.float32)
    for topic, pool in enumerate(pools):
        inherited = rng.choice(pool, INHERITED, replace=False)
        own = np.setdiff1d(_without_replacement(rng, likely, TOPIC_TERMS), inherited)
        topics[topic] = rng.permutation(np.concatenate([inherited, own])[:TOPIC_TERMS])
        falling = 1.9 * np.exp(-np.arange(TOPIC_TERMS) / 70.0) * rng.lognormal(0, 0.25, TOPIC_TERMS)
        weights[topic] = falling * (0.45 + 0.55 * rarity[topics[topic]])
    return topics, weights


def _without_replacement(rng: np.random.Generator, logits: Floats, count: int) -> NDArray[np.int64]:
    """Gumbel's trick: the largest of logits plus noise are a sample without replacement."""
    noisy = logits + rng.gumbel(size=logits.shape)
    return np.argpartition(-noisy, count)[:count]


def _draw(world: World, shape: Shape, count: int, *, seed: int, least: int, question: bool) -> Csr:
    rng = np.random.default_rng(seed)
    own = rng.choice(len(world.topics), count, p=world.sizes).astype(np.int32)
    sibling = rng.random(count) < 0.5
    by_parent = np.argsort(world.parents, kind="stable")
    begins = np.searchsorted(world.parents[by_parent], np.arange(world.parents.max() + 2))
    parent = world.parents[own]
    siblings = begins[parent + 1] - begins[parent]
    near = by_parent[begins[parent] + (rng.random(count) * siblings).astype(int)]
    near = np.where(sibling, near, rng.choice(len(world.topics), count, p=world.sizes)).astype(np.int32)
    lengths = np.clip(rng.normal(shape.terms, shape.spread, count), least, 350).astype(np.int64)
    kept = np.clip(rng.normal(shape.question_terms, shape.question_spread, count), 2, 110).astype(np.int64)
    drawn = _vectors(
        seed, own, near, lengths, kept if question else lengths, question, shape.power,
        world.topics, world.weights, world.chances, world.popular, world.rarity,
    )  # fmt: skip
    return Csr(*drawn)


@njit(cache=True)
def _vectors(
    seed, own, near, lengths, kept, question, power, topics, weights, chances, popular, rarity
):  # fmt: skip
    """Offsets, terms and weights of all vectors; terms ascend within a vector."""
    np.random.seed(seed)
    offsets = np.zeros(len(own) + 1, np.int64)
    terms = np.empty(lengths.sum() + len(own), np.int32)
    values = np.empty(lengths.sum() + len(own), np.float32)
    found = np.zeros(len(popular), np.float32)
    end = 0
    for i in range(len(own)):
        used = _passage(found, lengths[i], own[i], near[i], topics, weights, chances, popular, rarity)
        chosen = _heavy(found, used, kept[i]) if question else used
        for term in chosen:
            terms[end] = term
            values[end] = found[term]
            if question:
                values[end] = found[term] ** power * np.exp(0.45 * np.random.randn())
            end += 1
        found[used] = 0
        offsets[i + 1] = end
    return offsets, terms[:end].copy(), values[:end].copy()


@njit(cache=True)
def _passage(found, length, own, near, topics, weights, chances, popular, rarity):
    """Draw the terms of one passage, ascending; their weights go to `found`, which was zero."""
    used, count, tries = np.empty(length, np.int32), 0, 0
    from_own, from_topics = int(OWN_SHARE * length), int((OWN_SHARE + NEAR_SHARE) * length)
    loudness = np.exp(0.25 * np.random.randn())
    while count < length and tries < 20 * length:
        tries += 1
        if count < from_topics:
            topic, share = (own, 1.0) if count < from_own else (near, 0.6)
            place = min(np.searchsorted(chances[topic], np.random.random()), topics.shape[1] - 1)
            term = topics[topic, place]
            weight = share * (0.35 + weights[topic, place]) * np.exp(0.75 * np.random.randn())
        else:
            term = min(np.searchsorted(popular, np.random.random()), len(popular) - 1)
            weight = _background(rarity[term])
        if found[term] == 0:
            found[term] = min(weight * loudness, 3.8)
            used[count] = term
            count += 1
    return np.sort(used[:count])


@njit(cache=True)
def _background(rarity):
    """A light weight, in one of 17 cases a heavy one: the names a passage is about."""
    weight = 0.36 * -np.log(np.random.random() + 1e-9) * (0.4 + 0.6 * rarity) + 0.02
    return weight * 3.0 + 0.6 if np.random.random() < 0.06 else weight


@njit(cache=True)
def _heavy(found, used, count):
    """So many of the terms, drawn without replacement, heavy ones sooner; ascending."""
    keys = np.empty(len(used))
    for i in range(len(used)):
        keys[i] = -np.log(np.random.random() + 1e-12) / (found[used[i]] ** 1.5 + 1e-9)
    return np.sort(used[np.argsort(keys)[: min(count, len(used))]])
