"""Every family that is said to run in blocks does, and what cannot is refused by name."""

from pathlib import Path

import numpy as np
import pytest

from models.in_context import families
from models.in_context.flat import masked_attention
from models.in_context.read_out import BlockRank, Drop
from models.in_context.segments import Segments, mask
from tests.models.in_context.nets import QUERY, tiny_net, tokens

FULL = {"sliding_window": None}
CONFIGS = {
    "llama": {},
    "mistral": FULL,
    "qwen2": {},
    "qwen3": {},
    "phi3": FULL,
    "olmo2": {},
    "smollm3": {},
    "gemma": {},
    "gemma3_text": {},
    "granite": {"embedding_multiplier": 3.0, "attention_multiplier": 0.2},
}


def test_all_families_are_tried() -> None:
    assert set(CONFIGS) == families.KNOWN


@pytest.mark.parametrize("family", CONFIGS)
def test_a_family_gives_in_blocks_what_it_gives_at_once(family: str, tmp_path: Path) -> None:
    net = tiny_net(tmp_path, family, double=True, config=CONFIGS[family])
    documents = tokens(net)
    prompt = net.prompt(QUERY, documents, "query_aware", BlockRank("words"))
    segments = Segments.of(len(prompt.instruction), list(map(len, documents)), len(prompt.question.block.ids))
    whole = net.flat(prompt, masked_attention(mask(segments)), segments.positions(net.recipe.gap))
    (ours,) = net.rank([prompt])
    # Some families normalise in float32 whatever the format of the net.
    np.testing.assert_allclose(ours.scores, whole.scores, rtol=0, atol=2e-6)
    assert np.ptp(ours.scores) > 1e-3


@pytest.mark.parametrize("family", sorted(families.RESUMED))
def test_a_family_that_can_be_read_on_gives_the_same(family: str, tmp_path: Path) -> None:
    net = tiny_net(tmp_path, family, double=True, config=CONFIGS[family])
    plain, kept = (
        net.rank([net.prompt(QUERY, tokens(net), "query_aware", None, drop)])[0]
        for drop in (None, Drop(1, 1.0))
    )
    np.testing.assert_allclose(kept.scores, plain.scores, rtol=0, atol=2e-6)


@pytest.mark.parametrize("family", sorted(families.KNOWN - families.RESUMED))
def test_a_family_that_cannot_be_read_on_drops_nothing_while_it_reads(family: str, tmp_path: Path) -> None:
    net = tiny_net(tmp_path, family, config=CONFIGS[family])
    with pytest.raises(ValueError, match="cannot read on"):
        net.prompt(QUERY, tokens(net), "query_aware", None, Drop(1, 0.5))
    net.question(QUERY, "cached", drop=Drop(1, 0.5))


@pytest.mark.parametrize(
    ("family", "config", "message"),
    [
        ("stablelm", {}, "is a stablelm, which is not known to run in blocks"),
        ("gemma2", {}, "is a gemma2, which is not known"),
        ("mistral", {"sliding_window": 64}, "a token sees 64"),
        (
            "qwen2",
            {"sliding_window": 64, "use_sliding_window": True, "max_window_layers": 0},
            "a token sees 64",
        ),
        ("llama", {"max_tokens": 100}, "a token sees 100"),
        ("gemma", {"attn_logit_softcapping": 30.0}, "caps its attention logits"),
    ],
)
def test_what_cannot_run_in_blocks_is_refused_by_name(
    family: str, config: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_net(tmp_path, family, config=config)


def test_a_window_that_holds_the_whole_prompt_is_no_window(tmp_path: Path) -> None:
    net = tiny_net(tmp_path, "mistral", config={"sliding_window": 1000})
    assert net.max_tokens == 1000
    with pytest.raises(ValueError, match="sees 1000: rerank fewer"):
        net.prompt(QUERY, [[5] * 50] * 20, "dense")
